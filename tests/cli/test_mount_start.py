"""A mount that is being made: through autofs, interrupted, killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from tests.cli.conftest import Command, environment_of_the_program

pytestmark = pytest.mark.mounted
PROGRAM = [sys.executable, "-P", "-c", "from deferfs.cli.main import main; main()"]
AUTOMOUNTER = Path(__file__).with_name("automounter.py")


def is_mounted(directory: Path) -> bool:
    return f" {directory} " in Path("/proc/self/mountinfo").read_text()


@pytest.mark.skipif("\tautofs\n" not in Path("/proc/filesystems").read_text(), reason="needs autofs in the kernel")
def test_through_autofs(image: Path, directory: Path, program: Command) -> None:
    """Only the process group of the automounter may pass to what is being mounted."""
    with subprocess.Popen(
        [sys.executable, AUTOMOUNTER, directory, *PROGRAM, "mount", image, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment_of_the_program(),
    ) as automounter:
        assert automounter.stdout is not None
        try:
            assert automounter.stdout.readline() == b"ready\n"
            done = subprocess.run(["touch", f"{directory}/file"], timeout=30, check=False)
            assert done.returncode == 0
            assert program("umount", directory).code == 0
        finally:
            os.killpg(automounter.pid, signal.SIGKILL)  # so that autofs lets all pass
            subprocess.run(["umount", "-l", directory], check=True)
    assert program("mount", image, directory).code == 0
    assert (directory / "file").exists()
    assert program("umount", directory).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_mount_does_not_come_later(
    number: signal.Signals, image: Path, directory: Path, program: Command
) -> None:
    held = FileDevice.open(str(image), writable=True)
    words = [*PROGRAM, "mount", str(image), str(directory)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment_of_the_program()) as mount:
        assert mount.stderr is not None
        said = mount.stderr.readline()
        mount.send_signal(number)
        mount.stderr.read()  # to its end: the daemon has it too, and has ended
    held.close()
    assert f"waiting for python (pid {os.getpid()})" in said
    assert mount.returncode == {signal.SIGINT: 8}.get(number, -number)
    assert not is_mounted(directory)
    assert program("mount", image, directory).code == 0  # it does not wait
    assert program("umount", directory).code == 0


KILLED = """
import os, signal, sys
from deferfs.mount.fuse.kernel_mount import KernelMount
remember = KernelMount._remember
def killed(self):
    remember(self)
    os.kill(os.getpid(), signal.SIGKILL)
KernelMount._remember = killed
from deferfs.cli.main import main
main()
"""


def test_a_daemon_that_is_killed_while_it_starts_leaves_no_dead_mount(
    image: Path, directory: Path, program: Command
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, "mount", image, directory],
        capture_output=True,
        text=True,
        check=False,
        env=environment_of_the_program(),
    )
    assert done.returncode == 32
    assert "the daemon ended before the mount was usable" in done.stderr
    assert not is_mounted(directory)
    assert program("mount", image, directory).code == 0
    assert program("umount", directory).code == 0
