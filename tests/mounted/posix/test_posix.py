"""The tables of POSIX and Linux semantics (`tables/*.rows`, in the language of `language.py`), on deferfs in its
combinations of modes, and on ext4 and XFS: a row that these fail is a wrong row.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import preloaded
from tests.examples import night
from tests.mounted.posix.language import read_table
from tests.mounted.posix.places import Place, place
from tests.mounted.scratch import run

pytestmark = [pytest.mark.mounted, pytest.mark.needs("mkfs.ext4", "mkfs.xfs")]

TABLES = Path(__file__).parent / "tables"
ROOT = Path(__file__).parents[3]
QUICK = [
    "open",
    "paths",
    "names",
    "readdir",
    "rename",
    "modes",
    "data",
    "times",
    "xattrs",
    "acls",
    "locks",
    "filesystem",
]
"""All tables but `slow`."""
ROWS_MIN = 1000
CLOSELY_READ = 100
"""Entries of a directory."""
COMPARED_BYTES_MAX = 1 << 20
"""Larger files are compared by their attributes alone: some have 16 TiB."""

IN_EACH_MODE = ("data", "times", "open", "filesystem")
"""What the modes of a mount change, or might. The usual run has other tables on a mount with default options alone."""
BY_DEFAULT = "deferfs-writeback-deferred"
PLACES = [
    BY_DEFAULT,
    night("deferfs-writeback-inline"),
    night("deferfs-through-deferred"),
    "deferfs-through-inline",
    night("deferfs-writeback-deferred-rootonly"),
    night("ext4"),
    night("xfs"),
]


@pytest.fixture(scope="module", params=PLACES)
def somewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One mount for all tables."""
    with place(tmp_path_factory.mktemp("posix") / "place", request.param) as found:
        yield found


def run_table(where: Place, table: str, seconds: float = 100) -> None:
    directory = where.directory / table
    directory.mkdir()
    words = (sys.executable, "-m", "tests.mounted.posix", where.names, directory, table)
    done = run(*words, cwd=ROOT, code=None, seconds=seconds)
    assert done.returncode == 0, f"{done.stdout[-4000:]}{done.stderr[-2000:]}"


def drops_caches(table: str) -> bool:
    """Whether a row has the whole machine forget what is clean."""
    return "drop_names" in (TABLES / f"{table}.rows").read_text()


def leave_to_the_night_but_by_default(request: pytest.FixtureRequest) -> None:
    """Skip a test on a mount with other options, without --long."""
    if request.node.callspec.params["somewhere"] != BY_DEFAULT and not request.config.getoption("--long"):
        pytest.skip("takes minutes in all modes; run with --long")


@pytest.mark.parametrize(
    "table", [pytest.param(table, marks=[pytest.mark.machine] if drops_caches(table) else []) for table in QUICK]
)
def test_rows(somewhere: Place, table: str, request: pytest.FixtureRequest) -> None:
    if table not in IN_EACH_MODE:
        leave_to_the_night_but_by_default(request)
    run_table(somewhere, table)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_slow_rows(somewhere: Place) -> None:
    run_table(somewhere, "slow", seconds=800)


def test_the_tree_is_the_same_after_a_remount(
    somewhere: Place, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """What the rows left behind. (This test comes last: the tables share the mount.)"""
    leave_to_the_night_but_by_default(request)
    monkeypatch.delenv(preloaded.MARK)  # the daemon outlives this test
    before = dict(tree(os.fsencode(somewhere.directory)))
    assert len(before) > ROWS_MIN
    somewhere.remount()
    after = dict(tree(os.fsencode(somewhere.directory)))
    wrong = [f"{name!r}: {before.get(name)} became {after.get(name)}" for name in sorted(before.keys() | after.keys())
             if before.get(name) != after.get(name)]  # fmt: skip
    assert not wrong, "\n".join(wrong[:20])


def tree(root: bytes) -> Iterator[tuple[bytes, tuple[object, ...]]]:
    """Every name below `root`, with everything that stat(2) tells; of the first CLOSELY_READ of each directory also
    extended attributes and small contents. Not the access times, which looking changes.
    """
    with os.scandir(root) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for number, entry in enumerate(entries):
        status = entry.stat(follow_symlinks=False)
        inside = (_xattrs(entry.path), _content(entry.path, status)) if number < CLOSELY_READ else ()
        yield entry.path, (*_attributes(status), *inside)
        if entry.is_dir(follow_symlinks=False):
            yield from tree(entry.path)


def _attributes(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_rdev, status.st_size,
        status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _xattrs(path: bytes) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _content(path: bytes, status: os.stat_result) -> bytes | None:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size > COMPARED_BYTES_MAX:
        return None
    return Path(os.fsdecode(path)).read_bytes() if status.st_size else b""


# --- the suite itself ---
def test_every_table_is_run() -> None:
    assert {path.stem for path in TABLES.glob("*.rows")} == {*QUICK, "slow"}


def test_rows_are_many_and_no_two_are_the_same() -> None:
    rows = [row for table in TABLES.glob("*.rows") for row in read_table(table) if row.is_for(frozenset(("deferfs",)))]
    texts = [row.text for row in rows]
    assert len(texts) > ROWS_MIN
    assert sorted(set(texts)) == sorted(texts)


def test_a_wrong_row_is_found(tmp_path: Path) -> None:
    """The machine notices each kind of difference: an errno, a success, a value, a bound."""
    table = tmp_path / "wrong.rows"
    rows = (
        "touch f; unlink f -> ENOENT",
        "unlink f",
        "touch f; mode f -> 0600",
        "touch f; size f -> >=1",
        "touch f; as alice chmod f 0666",
    )
    table.write_text("\n".join(rows) + "\n")
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    words = (sys.executable, "-m", "tests.mounted.posix", "ext4", place, str(table.with_suffix("")))
    done = run(*words, cwd=ROOT, code=1)
    assert done.stdout.splitlines()[-1] == f"{len(rows)} rows, {len(rows)} failed"
