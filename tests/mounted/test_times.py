"""The order of times is the order of events, between what the daemon stamps, what the kernel does, and other
filesystems, while another process has the kernel stamp finely.

Since Linux 6.13 the stamps of the kernel follow a floor, which each stamp of the fine clock raises: the neighbour has
it raised all the time. Before 6.13 all of them come from the coarse clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples import examples
from tests.mounted.scratch import Scratch, run

pytestmark = pytest.mark.mounted

TRIES = examples(500)
_NEIGHBOUR = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
print("runs", flush=True)
while True:
    os.pwrite(fd, b"x", 0)
    os.fstat(fd)
"""


@pytest.fixture(scope="module", params=["on", "off"])
def filesystem(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With and without the writeback cache, with which the kernel stamps the content of regular files."""
    scratch = Scratch(tmp_path_factory.mktemp("times") / "scratch")
    try:
        yield scratch.mount(f"writeback_cache={request.param}")
        scratch.unmount_and_check()
    finally:
        scratch.end()


@pytest.fixture
def directory(filesystem: Path) -> Path:
    """The test's own, in the filesystem that all share."""
    made = Path(tempfile.mkdtemp(dir=filesystem))
    made.chmod(0o755)
    return made


@pytest.fixture(autouse=True)
def neighbour(directory: Path) -> Iterator[None]:
    """A process that writes a file in memory (tmpfs takes part in the floor) and looks at its times, all the time; once
    the filesystem is mounted."""
    memory = os.memfd_create("neighbour", 0)
    command = [sys.executable, "-c", _NEIGHBOUR, f"/proc/self/fd/{memory}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[memory]) as process:
        assert process.stdout is not None and process.stdout.readline() == b"runs\n"
        try:
            yield
        finally:
            process.kill()
            os.close(memory)


Step = Callable[[Path, int], Path]
"""Changes something below a directory in try number `i`; what has changed."""


def _write(directory: Path, number: int) -> Path:
    path = directory / "written"
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.write(b"%d" % number)
    return path


def _outside(directory: Path, number: int) -> Path:
    """A file of another filesystem."""
    return _write(directory.parents[1], number)


def _create(directory: Path, number: int) -> Path:
    path = directory / f"created{number}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return path


def _mkdir(directory: Path, number: int) -> Path:
    path = directory / f"directory{number}"
    path.mkdir()
    return path


def _touch(directory: Path, number: int) -> Path:
    path = directory / "touched"
    path.touch()
    return path


def _touch_directory(directory: Path, number: int) -> Path:
    path = directory / "touched.d"
    path.mkdir(exist_ok=True)
    os.utime(path)
    return path


def _fill_directory(directory: Path, number: int) -> Path:
    path = directory / "filled.d"
    path.mkdir(exist_ok=True)
    (path / f"x{number}").mkdir()
    return path


STEPS: dict[str, Step] = {
    "write": _write,
    "write outside": _outside,
    "create": _create,
    "mkdir": _mkdir,
    "touch": _touch,
    "touch of a directory": _touch_directory,
    "mkdir in a directory": _fill_directory,
}
PAIRS = [
    ("write", "create"),
    ("write", "mkdir in a directory"),
    ("write outside", "create"),
    ("write outside", "mkdir"),
    ("touch", "create"),
    ("touch", "write outside"),
    ("touch of a directory", "create"),
    ("touch of a directory", "write"),
]
ORDERS = [*PAIRS, *((second, first) for first, second in PAIRS)]


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.mark.parametrize(("first", "second"), ORDERS)
def test_files_changed_later_are_not_older(first: str, second: str, directory: Path) -> None:
    wrong = 0
    for number in range(TRIES):
        before, after = STEPS[first](directory, number), STEPS[second](directory, number)
        wrong += _modified(before) > _modified(after)
    assert wrong == 0


def _rename(directory: Path, number: int) -> Path:
    path = directory / f"renamed{number}"
    return (directory / f"to-rename{number}").rename(path)


def _link(directory: Path, number: int) -> Path:
    os.link(directory / "linked", directory / f"link{number}")
    return directory / "linked"


def _chmod(directory: Path, number: int) -> Path:
    (directory / "linked").chmod(0o600 + number % 8)
    return directory / "linked"


@pytest.mark.parametrize("change", [_rename, _link, _chmod])
@pytest.mark.parametrize("written_first", [True, False])
def test_a_change_of_a_name_is_in_order_with_a_write(change: Step, written_first: bool, directory: Path) -> None:
    (directory / "linked").touch()
    for number in range(TRIES):
        (directory / f"to-rename{number}").touch()
    wrong = 0
    for number in range(TRIES):
        steps = (_write, change) if written_first else (change, _write)
        before, after = [step(directory, number) for step in steps]
        wrong += before.stat().st_ctime_ns > after.stat().st_ctime_ns
    assert wrong == 0


@pytest.mark.needs("make")
def test_make_builds_once(directory: Path) -> None:
    """Each target is made right after what it depends on was written."""
    (directory / "Makefile").write_text("out%: in%\n\t@: > $@\n\t@echo $@ >> built\n")
    rounds = 50
    for number in range(rounds):
        (directory / f"in{number}").write_text("x")
        run("make", "-s", f"out{number}", cwd=directory)
        run("make", "-s", f"out{number}", cwd=directory)
    assert (directory / "built").read_text().split() == [f"out{number}" for number in range(rounds)]
