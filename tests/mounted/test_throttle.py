"""A process that deletes faster than inodegc cleans up waits: in order, for a bounded time, unless killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deferfs.mount.host.process_status import being_killed
from tests.mounted import offline
from tests.mounted.backlog import make_backlog
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, deferfs, run

pytestmark = pytest.mark.mounted

FOR_EVER = "throttle_deadline=10000"
EXTENTS = 40_000
"""Of a file whose cleanup takes seconds."""

_UNLINK = "import os, sys; print(flush=True); os.unlink(sys.argv[1])"


def start_unlink(path: Path) -> subprocess.Popen[bytes]:
    """A process that is about to delete a file."""
    caller = subprocess.Popen([sys.executable, "-c", _UNLINK, path], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    assert caller.stdout.read(1) == b"\n"
    caller.stdout.close()
    return caller


def throttled(scratch: Scratch) -> int:
    """Requests that were held back so far."""
    return scratch.statistics().waits["throttle"].count


@pytest.fixture(scope="module")
def with_huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with one file, of so many extents."""
    image = tmp_path_factory.mktemp("throttle") / "image"
    deferfs("mkfs", "-q", image, "--size", "512M")
    with offline.opened(image) as driver:
        offline.make_scattered(driver, "huge", EXTENTS)
    return image


@pytest.fixture
def huge(plain: Scratch, with_huge: Path) -> Scratch:
    run("cp", "--sparse=always", with_huge, plain.image)
    return plain


def make_backlog_that_stays(scratch: Scratch, mount: Path) -> None:
    """One worker, busy for seconds with the first inode of its batch; behind it more than one batch."""
    scratch.control("gc_workers=1", "gc=stop")
    (mount / "huge").unlink()
    wait_until(lambda: scratch.statistics().gc.queued >= 1, "the kernel to forget it")
    make_backlog(scratch, mount, 200)


def test_processes_that_delete_many_files_are_throttled_and_all_finish(plain: Scratch) -> None:
    mount = plain.mount()
    folders = [mount / f"folder{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
        for number in range(250):
            (folder / str(number)).write_bytes(bytes(5000))
    plain.control("throttle_inodes=1", FOR_EVER)
    assert not throttled(plain)
    deleting = [subprocess.Popen(["rm", "-r", folder], stdin=subprocess.DEVNULL) for folder in folders]
    assert [process.wait(100) for process in deleting] == [0, 0, 0, 0]
    assert throttled(plain) > 10
    found = plain.statistics().throttle
    assert (found.waiting, found.expired_total, found.killed_total) == (0, 0, 0)
    plain.drain()
    plain.unmount_and_check()


def test_deletions_are_throttled_no_longer_than_the_deadline(huge: Scratch) -> None:
    mount = huge.mount()
    (mount / "victim").touch()
    make_backlog_that_stays(huge, mount)
    huge.control("throttle_inodes=10", "throttle_deadline=0.05", "gc=start")
    (mount / "victim").unlink()
    found = huge.statistics()
    assert found.throttle.expired_total == 1
    assert found.waits["throttle"].max_ns >= 50_000_000
    assert found.gc.queued > 10  # nothing else has let it go
    huge.drain()
    huge.unmount_and_check()


def test_a_throttled_process_that_is_killed_ends_at_once_and_has_deleted_nothing(huge: Scratch) -> None:
    mount = huge.mount()
    (mount / "victim").write_bytes(b"content")
    make_backlog_that_stays(huge, mount)
    huge.control("throttle_inodes=10", FOR_EVER, "gc=start")
    caller = start_unlink(mount / "victim")
    wait_until(lambda: huge.statistics().throttle.waiting == 1, "the caller to be held back")
    caller.kill()
    assert caller.wait(60) == -signal.SIGKILL
    found = huge.statistics()
    assert found.throttle.killed_total == 1
    assert found.gc.queued > 10
    assert (mount / "victim").read_bytes() == b"content"
    huge.drain()
    huge.unmount_and_check()


def test_a_caller_that_is_being_killed_can_be_seen(plain: Scratch) -> None:
    """The kernel waits for the answer to a request that was read, whatever happens to the caller."""
    mount = plain.mount()
    (mount / "victim").touch()
    plain.control("freeze=1")
    caller = start_unlink(mount / "victim")
    wait_until(lambda: "unlink" in run("cat", f"/proc/{caller.pid}/stack").stdout, "the caller to wait")
    assert not being_killed(caller.pid)
    caller.kill()
    wait_until(lambda: being_killed(caller.pid), "the signal to be pending")
    plain.control("thaw=1")
    assert caller.wait(60) == -signal.SIGKILL
    plain.unmount_and_check()


def test_deletions_are_not_throttled_while_inodegc_is_stopped(plain: Scratch) -> None:
    mount = plain.mount()
    (mount / "victim").touch()
    make_backlog(plain, mount, 20)
    plain.control(FOR_EVER, "throttle_inodes=1")
    (mount / "victim").unlink()
    plain.control("gc=start")
    plain.drain()
    plain.unmount_and_check()
