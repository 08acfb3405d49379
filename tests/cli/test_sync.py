"""`deferfs sync`."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from deferfs.mount.control import client
from tests.cli.conftest import Command, Outcome, is_one_line
from tests.cli.daemons import wait_for_end


@pytest.mark.mounted
def test_synced_files_survive_a_crash(mounted: Path, image: Path, program: Command) -> None:
    content = os.urandom(3_000_000)
    (mounted / "directory").mkdir()
    fd = os.open(mounted / "directory" / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, content)  # stays open: the kernel has not been asked to write it back
    assert program("sync", mounted / "directory") == Outcome(0, "", "")
    daemon = client.find_daemon(client.find_mount(str(mounted)))
    process = os.pidfd_open(daemon.pid)
    os.kill(daemon.pid, signal.SIGKILL)
    wait_for_end(process)
    with contextlib.suppress(OSError):  # ENOTCONN: no daemon is there to be told
        os.close(fd)
    assert program("umount", mounted).code == 0
    assert program("fsck", "-n", image).code == 0
    assert program("mount", image, mounted).code == 0
    assert (mounted / "directory" / "file").read_bytes() == content


@pytest.mark.mounted
def test_a_write_that_was_lost_is_told_once_and_the_rest_is_durable(mounted: Path, program: Command) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        (mounted / "large").write_bytes(bytes(32 << 20))  # reported by close: the kernel collects writes
    (mounted / "large").unlink()
    outcome = program("sync", mounted)
    assert outcome == Outcome(1, "", f"deferfs: {mounted}: some writes were lost: No space left on device\n")
    assert program("sync", mounted) == Outcome(0, "", "")


@pytest.mark.mounted
def test_a_mount_that_another_one_covers_is_never_mistaken_for_that(
    mounted: Path, image: Path, program: Command
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], check=True)
    try:
        covered = program("sync", image)
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert covered.code == 1
    assert "tmpfs is mounted over it" in covered.err
    assert is_one_line(covered.err)
    assert program("sync", image) == Outcome(0, "", "")


def test_sync_where_nothing_is_mounted(directory: Path, command: Command) -> None:
    outcome = command("sync", directory)
    assert outcome.code == 1
    assert "no deferfs is mounted here" in outcome.err
    assert is_one_line(outcome.err)
