"""What `umount` says and answers in each state of a daemon and its image: the table in docs/command-line.md."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferfs.mount.control import client
from tests.cli.conftest import Command, Outcome, environment_of_the_program, in_a_mount_namespace, is_one_line
from tests.mounted.polling import wait_until

pytestmark = pytest.mark.mounted


def command(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True)


def daemon_of(directory: Path) -> int:
    return client.find_daemon(client.find_mount(str(directory))).pid


@pytest.mark.parametrize("named", ["directory", "image"])
def test_covered(named: str, mounted: Path, image: Path, program: Command) -> None:
    command("mount", "-t", "tmpfs", "stranger", mounted)
    (mounted / "theirs").touch()
    outcome = program("umount", mounted if named == "directory" else image)
    assert (mounted / "theirs").exists()
    command("umount", mounted)
    assert outcome.code == 1
    assert "tmpfs is mounted over" in outcome.err
    assert is_one_line(outcome.err)


def test_a_mount_inside(mounted: Path, program: Command) -> None:
    (mounted / "in").mkdir()
    command("mount", "-t", "tmpfs", "stranger", mounted / "in")
    outcome = program("umount", mounted)
    command("umount", mounted / "in")
    assert outcome.code == 1
    assert outcome.err == (
        f"deferfs: {mounted}: tmpfs is mounted in it on {mounted}/in; unmount that first: umount {mounted}/in\n"
    )


def test_the_image_is_unmounted_everywhere(mounted: Path, image: Path, tmp_path: Path, program: Command) -> None:
    other = tmp_path / "other"
    other.mkdir()
    command("mount", "--bind", mounted, other)
    assert program("umount", image) == Outcome(0, "", "")
    assert not os.path.ismount(other) and not os.path.ismount(mounted)
    assert program("info", image).out.endswith("state    clean\n")


@pytest.mark.parametrize("named", ["directory", "image"])
def test_another_mount_namespace(named: str, mounted: Path, image: Path, program: Command) -> None:
    with subprocess.Popen(
        in_a_mount_namespace("sh", "-c", "echo; read line"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        daemon = os.pidfd_open(daemon_of(mounted))
        outcome = program("umount", mounted if named == "directory" else image)
    assert not os.path.ismount(mounted)
    assert outcome.code == (0 if named == "directory" else 1)
    what = f"still has it on {mounted}: the daemon keeps serving {image} until that ends, or nsenter -t {stranger.pid} "
    assert f"unmounted; another mount namespace, that of sh (pid {stranger.pid}), {what}" in outcome.err
    assert is_one_line(outcome.err)
    wait_for_end(daemon)


def test_detached_while_in_use(mounted: Path, image: Path, tmp_path: Path, program: Command) -> None:
    other = tmp_path / "other"
    other.mkdir()
    command("mount", "--bind", mounted, other)
    daemon = os.pidfd_open(daemon_of(mounted))
    with (mounted / "file").open("w"):
        command("umount", "-l", mounted)
        outcome = program("umount", other)
    assert outcome.code == 0
    assert (
        f"unmounted; it was detached while in use: the daemon keeps serving {image} until it is closed by"
        in outcome.err
    )
    assert f"(pid {os.getpid()}, " in outcome.err
    wait_for_end(daemon)


def wait_for_end(process: int) -> None:
    import select

    poller = select.poll()
    poller.register(process, select.POLLIN)
    assert poller.poll(30_000), "the daemon did not end"
    os.close(process)


def test_the_image_was_deleted(mounted: Path, image: Path, program: Command) -> None:
    (mounted / "file").write_text("gone")
    image.unlink()
    outcome = program("umount", mounted)
    assert outcome.code == 1
    assert outcome.err == (
        f"deferfs: {image}: unmounted, but it was deleted while it was mounted: what was written to it is gone\n"
    )


@pytest.fixture
def replaced(mounted: Path, image: Path, command: Command) -> Path:
    """A mount whose image has been moved away, and another one has its name."""
    image.rename(image.parent / "moved")
    assert command("mkfs", "-q", image, "--size", "16M").code == 0
    return mounted


def test_the_image_was_replaced(replaced: Path, image: Path, program: Command) -> None:
    assert program("info", image).out.endswith("state    clean\n")
    assert program("umount", image).code == 1
    assert os.path.ismount(replaced)
    (image.parent / "moved").unlink()
    outcome = program("umount", replaced)
    assert outcome.code == 1
    assert outcome.err == (
        f"deferfs: {image}: unmounted, but it was replaced by another file while it was mounted: what was written to it"
        " is gone\n"
    )


def test_the_image_was_moved(replaced: Path, image: Path, program: Command, tmp_path: Path) -> None:
    """It is known by its new name, and the other file is not taken for it."""
    moved = image.parent / "moved"
    (replaced / "file").write_text("kept")
    assert program("info", moved).out.endswith("state    mounted\n")
    assert f"{moved}: is mounted on {replaced}" in program("mount", moved, replaced).err
    outcome = program("umount", moved)
    assert outcome.code == 0
    assert "what was written is in the file that was moved" in outcome.err
    assert program("mount", moved, replaced).code == 0
    assert (replaced / "file").read_text() == "kept"
    assert program("umount", replaced) == Outcome(0, "", "")


def test_the_daemon_dies_on_the_way(mounted: Path, image: Path, program: Command) -> None:
    pid = daemon_of(mounted)
    os.kill(pid, signal.SIGSTOP)
    code = "from deferfs.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, "umount", mounted],
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of_the_program(),
    ) as asked:
        assert asked.stderr is not None
        said = asked.stderr.readline()
        os.kill(pid, signal.SIGKILL)
        said += asked.communicate(timeout=60)[1]
    assert asked.returncode == 1
    assert said == (
        f"deferfs: {mounted}: unmounted; waiting for the daemon (pid {pid}), which does not answer\n"
        f"deferfs: {image}: unmounted, but its daemon ended before it had written everything back; the next mount "
        "recovers it\n"
    )
    assert program("fsck", "-n", image).code == 0


@pytest.fixture
def doomed(tmp_path: Path, program: Command) -> Iterator[Path]:
    """An image on a filesystem of its own, which can be shut down."""
    host, disk = tmp_path / "host", tmp_path / "disk"
    host.mkdir()
    with disk.open("wb") as file:
        file.truncate(128 << 20)
    command("mkfs.ext4", "-q", "-F", disk)
    command("mount", "-o", "loop", disk, host)
    try:
        image = host / "image"
        assert program("mkfs", "-q", image, "--size", "32M").code == 0
        yield image
    finally:
        command("umount", host)


@pytest.mark.needs("mkfs.ext4", "xfs_io")
def test_a_daemon_in_the_foreground_tells_that_the_journal_was_aborted(
    doomed: Path, directory: Path, program: Command
) -> None:
    code = "from deferfs.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, "mount", "-f", doomed, directory],
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of_the_program(),
    ) as daemon:
        wait_until(lambda: os.path.ismount(directory), "the mount to come")
        command("xfs_io", "-x", "-c", "shutdown", doomed.parent)
        (directory / "file").write_text("lost")
        assert program("umount", directory).code == 1
        said = daemon.communicate(timeout=60)[1].splitlines()
    assert daemon.returncode == 32
    assert f"{doomed}: the journal was aborted" in said[-1]


@pytest.mark.needs("mkfs.ext4", "xfs_io")
def test_the_journal_was_aborted(doomed: Path, directory: Path, program: Command) -> None:
    image = doomed
    assert program("mount", image, directory).code == 0
    command("xfs_io", "-x", "-c", "shutdown", image.parent)
    (directory / "file").write_text("lost")
    outcome = program("umount", directory)
    assert not os.path.ismount(directory)
    assert outcome.code == 1
    assert f"{image}: unmounted, but the journal was aborted" in outcome.err
    assert is_one_line(outcome.err)
