"""The daemon is told to end: it unmounts its own mounts, wherever they are, and no others, and loses nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command, in_a_mount_namespace
from tests.cli.daemons import Foreground

pytestmark = pytest.mark.mounted
CONTENT = os.urandom(3_000_000)


@pytest.fixture
def daemon(image: Path, directory: Path) -> Iterator[Foreground]:
    started = Foreground(image, directory)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{directory.parent}/"):
            subprocess.run(["umount", "-l", line.split()[4]], check=True)


def command(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True)


def end(daemon: Foreground, *, busy: bool = True) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    if busy:
        daemon.wait_for("WARNING")
        daemon.process.send_signal(signal.SIGTERM)
    assert daemon.end() == 0


def assert_kept(image: Path, directory: Path, program: Command) -> None:
    assert program("mount", image, directory).code == 0
    assert (directory / "f").read_bytes() == CONTENT
    assert program("umount", directory).code == 0


def hold(path: Path) -> int:
    """A file with contents that the kernel has not handed over yet."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    assert os.write(file, CONTENT) == len(CONTENT)
    return file


def let_go(file: int) -> None:
    try:
        os.close(file)
    except OSError:  # the daemon has gone
        pass


def test_another_mount_over_ours_stays(daemon: Foreground, image: Path, directory: Path, program: Command) -> None:
    file = hold(directory / "f")
    command("mount", "-t", "tmpfs", "stranger", directory)
    (directory / "theirs").write_text("theirs")
    end(daemon)
    let_go(file)
    assert (directory / "theirs").read_text() == "theirs"
    assert any("tmpfs is mounted over it" in line for line in daemon.log)
    command("umount", directory)  # the tmpfs, then the dead mount
    assert program("umount", directory).code == 0
    assert_kept(image, directory, program)


def test_a_bound_one_is_found(daemon: Foreground, image: Path, directory: Path, program: Command) -> None:
    other = directory.parent / "other"
    other.mkdir()
    command("mount", "--bind", directory, other)
    command("umount", directory)
    file = hold(other / "f")
    end(daemon)
    let_go(file)
    assert not os.path.ismount(other)
    assert_kept(image, directory, program)


def test_a_mount_that_was_moved_is_found(image: Path, tmp_path: Path, directory: Path, program: Command) -> None:
    """With a directory above of it: the old path is gone."""
    (tmp_path / "a/b").mkdir(parents=True)
    daemon = Foreground(image, tmp_path / "a/b")
    (tmp_path / "a").rename(tmp_path / "c")
    file = hold(tmp_path / "c/b/f")
    end(daemon)
    let_go(file)
    assert not os.path.ismount(tmp_path / "c/b")
    assert_kept(image, directory, program)


def test_mount_move(daemon: Foreground, image: Path, directory: Path, program: Command) -> None:
    private, other = directory.parent / "private", directory.parent / "other"
    for path in (private, other):
        path.mkdir()
    command("mount", "--bind", private, private)
    command("mount", "--make-private", private)
    (private / "to").mkdir()
    command("mount", "--bind", directory, private / "to")
    command("umount", directory)
    (private / "there").mkdir()
    command("mount", "--move", private / "to", private / "there")
    (private / "there/f").write_bytes(CONTENT)
    end(daemon, busy=False)
    assert not os.path.ismount(private / "there")
    command("umount", private)
    assert_kept(image, directory, program)


def test_a_mount_that_was_detached_lazily(daemon: Foreground, image: Path, directory: Path, program: Command) -> None:
    """No path leads to it, and yet a process can write to it."""
    file = hold(directory / "f")
    command("umount", "-l", directory)
    end(daemon)
    let_go(file)
    assert_kept(image, directory, program)


def test_another_mount_namespace(daemon: Foreground, image: Path, directory: Path, program: Command) -> None:
    writer = (
        "import os, sys; f = os.open(sys.argv[1], 65, 0o644); d = sys.stdin.buffer.read(3000000); os.write(f, d);"
        "print('written', flush=True); sys.stdin.buffer.read()"
    )
    with subprocess.Popen(
        in_a_mount_namespace(sys.executable, "-c", writer, str(directory / "f")),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as stranger:  # fmt: skip
        assert stranger.stdin is not None and stranger.stdout is not None
        stranger.stdin.write(CONTENT)
        stranger.stdin.flush()
        assert stranger.stdout.readline() == b"written\n"
        command("umount", directory)
        end(daemon)
    assert_kept(image, directory, program)


def test_another_mount_inside_of_ours_stays(daemon: Foreground, image: Path, directory: Path, program: Command) -> None:
    """A lazy unmount would take it along. A dead mount is left, and said."""
    (directory / "f").write_bytes(CONTENT)
    (directory / "in").mkdir()
    command("mount", "-t", "tmpfs", "stranger", directory / "in")
    end(daemon)
    assert any(f"tmpfs is mounted in it on {directory}/in" in line for line in daemon.log)
    assert f" {directory}/in " in Path("/proc/self/mountinfo").read_text()
    command("umount", "-l", directory)
    assert_kept(image, directory, program)
