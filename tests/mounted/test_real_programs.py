"""Programs that people run, on the mount: afterwards everything is as on any other filesystem, also after a remount;
the image is clean; and when all is deleted, all space is back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted import sources
from tests.mounted.scratch import Scratch, run
from tests.mounted.trees import Entry, assert_same, snapshot

pytestmark = [pytest.mark.mounted, pytest.mark.needs("git", "rsync", "sqlite3")]
PROGRAMS = Path(__file__).parent / "programs"
GIT = sources.GIT_ENVIRONMENT


def live_through(scratch: Scratch, work: Callable[[Path], None], verify: Callable[[Path], None]) -> None:
    """Work, verify, remount, compare and verify again, delete everything: the space of a fresh image is back."""
    mount = scratch.mount()
    fresh = scratch.space()
    work(mount)
    verify(mount)
    before = snapshot(mount)
    scratch.remount()
    assert_same(before, snapshot(mount))
    verify(mount)
    remove_all(mount)
    scratch.drain()
    assert scratch.space() == fresh
    assert scratch.statistics().inodes.quarantined == 0
    scratch.remount()
    assert scratch.space() == fresh
    scratch.unmount_and_check()


def remove_all(mount: Path) -> None:
    run("rm", "-rf", "--", *sorted(mount.iterdir()))
    assert os.listdir(mount) == []


@pytest.mark.parametrize("origin", ["/usr/include", "/usr/share/doc"])
def test_cp(scratch: Scratch, tmp_path: Path, origin: str) -> None:
    source = tmp_path / "source"
    sources.copy_some(Path(origin), source, 400)
    copy(scratch, source, "cp", "-a")


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("origin", ["/usr/include", "/usr/share/doc"])
def test_cp_of_a_whole_system_directory(scratch: Scratch, origin: str) -> None:
    if not Path(origin).is_dir() or not os.listdir(origin):
        pytest.skip(f"{origin} is empty")
    copy(scratch, Path(origin), "cp", "-a")


@pytest.mark.parametrize(
    "program",
    [("cp", "-a"), ("rsync", "-aHXS", "--modify-window=-1")],
    ids=["cp", "rsync"],
)
def test_copy_of_an_awkward_tree(scratch: Scratch, tmp_path: Path, program: tuple[str, ...]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    sources.make_awkward_tree(source)
    copy(scratch, source, *program)


def copy(scratch: Scratch, source: Path, *program: str) -> None:
    expected = snapshot(source)

    def work(mount: Path) -> None:
        run(*program, f"{source}/.", mount / "copy" if program[0] == "cp" else f"{mount}/copy/", seconds=600)

    def verify(mount: Path) -> None:
        assert_same(expected, snapshot(mount / "copy"))

    live_through(scratch, work, verify)


def test_git(scratch: Scratch, tmp_path: Path) -> None:
    """Clone, fsck, check out back and forth, repack."""
    origin = tmp_path / "origin"
    sources.make_repository(origin)
    commits = run("git", "-C", origin, "rev-list", "main", env=GIT).stdout.split()
    expected = {}
    for commit in commits:
        run("git", "-C", origin, "checkout", "-q", commit, env=GIT)
        expected[commit] = snapshot_without_git(origin)

    def work(mount: Path) -> None:
        run("git", "clone", "-q", "--no-local", f"file://{origin}", mount / "clone", env=GIT)

    def verify(mount: Path) -> None:
        clone = ("git", "-C", mount / "clone")
        run(*clone, "fsck", "--full", "--strict", env=GIT)
        for commit in (*commits[::2], *commits[1::2][::-1], commits[0]):
            run(*clone, "checkout", "-q", commit, env=GIT)
            assert run(*clone, "status", "--porcelain", env=GIT).stdout == ""
            assert_same(expected[commit], snapshot_without_git(mount / "clone"), mtimes=False)
        run(*clone, "gc", "-q", "--prune=now", env=GIT)

    live_through(scratch, work, verify)


@pytest.mark.long
def test_git_clone_of_this_repository(scratch: Scratch, tmp_path: Path) -> None:
    if not (sources.ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    here = tmp_path / "here"
    run("git", "clone", "-q", sources.ROOT, here, env=GIT)

    def work(mount: Path) -> None:
        run("git", "clone", "-q", f"file://{sources.ROOT}", mount / "clone", env=GIT)

    def verify(mount: Path) -> None:
        run("git", "-C", mount / "clone", "fsck", "--full", env=GIT)
        assert_same(snapshot_without_git(here), snapshot_without_git(mount / "clone"), mtimes=False)

    live_through(scratch, work, verify)


def snapshot_without_git(root: Path) -> dict[str, Entry]:
    return {name: entry for name, entry in snapshot(root).items() if name.split("/")[0] not in (".git", ".")}


def test_tar_and_compileall(scratch: Scratch, tmp_path: Path) -> None:
    archive = tmp_path / "distribution.tar"
    sources.make_source_distribution(archive, "json", "email", "asyncio", "unittest")
    here = tmp_path / "here"
    here.mkdir()
    unpack_and_compile(archive, here)
    expected = snapshot(here / "distribution")

    def work(mount: Path) -> None:
        unpack_and_compile(archive, mount)
        run("tar", "-C", mount, "-cf", mount / "again.tar", "distribution")

    def verify(mount: Path) -> None:
        found = snapshot(mount / "distribution")
        plain = {name for name in expected if "__pycache__" not in name and not is_parent_of_cache(here, name)}
        assert_same({name: expected[name] for name in plain}, {name: found[name] for name in plain})
        assert_same(expected, found, mtimes=False)
        run("tar", "-C", mount, "--compare", "-f", mount / "again.tar")

    live_through(scratch, work, verify)


def is_parent_of_cache(here: Path, name: str) -> bool:
    return (here / "distribution" / name / "__pycache__").exists()


def unpack_and_compile(archive: Path, into: Path) -> None:
    run("tar", "-C", into, "-xpf", archive)
    run(
        sys.executable, "-m", "compileall", "-q", "-s", into, "-p", "/", into / "distribution",
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite(scratch: Scratch, tmp_path: Path, mode: str) -> None:
    """A writer and two readers at the same time."""
    transactions = 60

    def work(mount: Path) -> None:
        arguments = [str(mount / "database"), mode, str(transactions)]
        readers = [subprocess.Popen([sys.executable, PROGRAMS / "sqlite_reader.py", *arguments]) for _ in range(2)]
        try:
            run(sys.executable, PROGRAMS / "sqlite_writer.py", *arguments, tmp_path / "notes")
            assert [reader.wait(60) for reader in readers] == [0, 0]
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()

    def verify(mount: Path) -> None:
        query = "PRAGMA integrity_check; SELECT count(*) FROM numbers;"
        assert run("sqlite3", mount / "database", query).stdout.split() == ["ok", f"{transactions * 10}"]

    live_through(scratch, work, verify)


def test_shell_utilities(scratch: Scratch, tmp_path: Path) -> None:
    """sort, split, sed -i, gzip, find -delete: temporary files, renames over files, many writers."""
    lines = "".join(f"{number * 7919 % 10007} line\n" for number in range(20_000))

    def work(mount: Path) -> None:
        (mount / "lines").write_text(lines)
        script = (
            "sort -n -S 64k -T . lines -o sorted && split -l 500 sorted part. && cat part.* > joined && "
            "cp sorted edited && sed -i s/line/LINE/ edited && gzip -k edited && "
            "mkdir tree && for i in 1 2 3 4; do (for j in 1 2 3 4 5 6 7 8; do echo $i $j > tree/$i.$j; "
            "mv tree/$i.$j tree/x$i.$j; done) & done; wait; find tree -name 'x[12].*' -delete"
        )
        run("bash", "-ec", script, cwd=mount, env={**os.environ, "LC_ALL": "C"})

    def verify(mount: Path) -> None:
        wanted = "".join(sorted(lines.splitlines(keepends=True), key=lambda line: (int(line.split()[0]), line)))
        assert (mount / "sorted").read_text() == wanted
        assert (mount / "joined").read_text() == wanted
        assert (mount / "edited").read_text() == wanted.replace("line", "LINE")
        assert run("gzip", "-dc", mount / "edited.gz").stdout == wanted.replace("line", "LINE")
        assert sorted(os.listdir(mount / "tree")) == [f"x{i}.{j}" for i in (3, 4) for j in range(1, 9)]

    live_through(scratch, work, verify)


def test_untar_with_small_blocks_and_little_memory(
    make_scratch: Callable[..., Scratch], evict: str, tmp_path: Path
) -> None:
    """1 KiB blocks and a small log: trees are deep, commits and checkpoints frequent, the log wraps."""
    scratch = make_scratch(evict=evict, size="64M", format_options=["-b", "1024", "--journal-size", "1M"])
    archive = tmp_path / "distribution.tar"
    sources.make_source_distribution(archive, "json", "email", "asyncio", "xml", "importlib")
    here = tmp_path / "here"
    here.mkdir()
    run("tar", "-C", here, "-xpf", archive)
    expected = snapshot(here / "distribution")

    def work(mount: Path) -> None:
        scratch.control("memory=2M")
        run("tar", "-C", mount, "-xpf", archive)

    def verify(mount: Path) -> None:
        assert_same(expected, snapshot(mount / "distribution"))

    live_through(scratch, work, verify)
