"""Reclaim on a mount: freezing, read-only, an unmount with a backlog, and space that comes back."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deferfs.measure.slow_disk import SlowDisk
from deferfs.measure.work.scattered import make_file
from tests.examples import night
from tests.mounted.backlog import make_backlog
from tests.mounted.conftest import MakeScratch
from tests.mounted.expect import fails_with
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, deferfs, drop_kernel_caches, run

pytestmark = [pytest.mark.mounted, pytest.mark.each_policy]


def start(*words: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# --- freeze ---


@pytest.mark.machine
def test_a_frozen_filesystem_can_be_read_and_copied_and_goes_on_after_the_thaw(scratch: Scratch) -> None:
    mount = scratch.mount()
    (mount / "before").write_bytes(b"x" * 50_000)
    (mount / "busy").mkdir()
    doomed = os.open(mount / "doomed", os.O_CREAT | os.O_RDWR)
    os.unlink(mount / "doomed")
    scratch.control("freeze=1")
    assert scratch.statistics().frozen
    copy = scratch.directory / "copy"
    run("cp", "--sparse=always", scratch.image, copy)
    deferfs("fsck", "-n", copy)
    writer = start("dd", "if=/dev/zero", f"of={mount}/busy/late", "bs=100k", "count=1", "conv=fsync")
    time.sleep(0.3)  # it must not get anywhere; if it does later, the assertion below is too kind, never too strict
    assert writer.poll() is None
    os.close(doomed)
    assert (mount / "before").read_bytes() == b"x" * 50_000
    drop_kernel_caches()
    assert sorted(os.listdir(mount)) == ["before", "busy"]
    scratch.control("thaw=1")
    assert writer.wait(60) == 0
    assert (mount / "busy" / "late").stat().st_size == 102_400
    scratch.drain()
    scratch.unmount_and_check()


def test_freezing_twice_and_thawing_what_is_not_frozen_are_refused(plain: Scratch) -> None:
    mount = plain.mount()
    assert "not frozen" in deferfs("ctl", mount, "thaw=1", code=1).stderr
    plain.control("freeze=1")
    assert "already frozen" in deferfs("ctl", mount, "freeze=1", code=1).stderr
    plain.unmount_and_check()


def test_processes_that_wait_for_a_thaw_can_be_killed(plain: Scratch) -> None:
    """And a forgotten freeze ends: the thaw that comes too late fails."""
    mount = plain.mount()
    (mount / "file").write_text("content")
    plain.control("freeze=1")
    for command in (["touch", "new"], ["rm", "file"], ["mkdir", "directory"], ["truncate", "-s1", "file"]):
        with subprocess.Popen(command, cwd=mount) as process:
            wait_until(lambda: plain.statistics().freeze.waiting == 1, "it to wait")
            process.kill()
            assert process.wait(timeout=60) == -signal.SIGKILL
    found = plain.statistics().freeze
    assert found.killed_total == 4
    assert found.since_ns > 0
    plain.control("freeze_limit=0.1")
    wait_until(lambda: not plain.statistics().frozen, "the limit to end the freeze")
    assert "not frozen any more: freeze_limit=0.1" in deferfs("ctl", mount, "thaw=1", code=1).stderr
    assert os.listdir(mount) == ["file"]
    plain.unmount_and_check()


def test_a_freeze_reports_writes_that_were_lost(make_scratch: MakeScratch) -> None:
    scratch = make_scratch(size="24M")
    mount = scratch.mount()
    run("dd", "if=/dev/zero", f"of={mount}/big", "bs=64k", "count=800", "conv=notrunc", code=None)
    done = deferfs("ctl", mount, "freeze=1", code=1)
    assert "not frozen: the kernel's dirty pages could not be written: No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not scratch.statistics().frozen
    scratch.control("freeze=1", "thaw=1")  # that was known already
    scratch.unmount_and_check()


# --- read-only ---


@pytest.mark.machine
def test_read_only_while_mounted_and_back(scratch: Scratch) -> None:
    mount = scratch.mount()
    (mount / "file").write_bytes(b"x" * 50_000)
    with (mount / "open").open("wb"):
        done = deferfs("ctl", mount, "ro=1", code=1)
        assert "files are open for writing" in done.stderr
        (mount / "still").write_bytes(b"writable")
    scratch.control("ro=1")
    assert scratch.statistics().read_only
    with fails_with(errno.EROFS):
        (mount / "new").touch()
    with fails_with(errno.EROFS):
        (mount / "file").unlink()
    drop_kernel_caches()
    assert (mount / "file").read_bytes() == b"x" * 50_000
    copy = scratch.directory / "copy"
    run("cp", "--sparse=always", scratch.image, copy)
    deferfs("fsck", "-n", copy)
    scratch.control("ro=0")
    (mount / "new").write_bytes(b"y" * 50_000)
    scratch.remount()
    assert (mount / "new").read_bytes() == b"y" * 50_000
    scratch.unmount_and_check()


def test_a_mount_made_read_only_stays_so(plain: Scratch) -> None:
    mount = plain.mount("ro")
    assert "opened read-only" in deferfs("ctl", mount, "ro=0", code=1).stderr
    plain.unmount()


# --- a backlog ---


@pytest.mark.parametrize("count", [1500, night(100_000)])
@pytest.mark.timeout(900)
def test_an_unmount_leaves_what_it_has_no_time_for_to_the_next_mount(
    make_scratch: MakeScratch, evict: str, count: int
) -> None:
    scratch = make_scratch(evict=evict, size="1G")
    mount = scratch.mount("commit=1")
    (mount / "backlog").mkdir()
    (mount / "backlog").rmdir()
    scratch.drain()
    fresh = scratch.space()
    make_backlog(scratch, mount, count, 5000)
    assert scratch.statistics().gc.pending_bytes >= count * 4096
    records = count // 7  # blocks of the inode table and of the orphan table
    assert os.statvfs(mount).f_bfree >= fresh[1] - 500 - records  # what waits counts as free: all but metadata
    scratch.control("drain=0")
    scratch.unmount_and_check()
    mount = scratch.mount()
    (mount / "backlog").rmdir()
    scratch.drain()
    assert scratch.space() == fresh
    scratch.unmount_and_check()


def test_an_unmount_waits_for_a_cleanup_that_runs_inline(tmp_path: Path) -> None:
    """Longer than the first look of `deferfs umount` at the daemon. Another process does not keep the mount."""
    image, mount = tmp_path / "image", tmp_path / "mnt"
    mount.mkdir()
    deferfs("mkfs", "-q", image, "--size", "64M")
    with SlowDisk(image, "none", tmp_path, lambda pid: None) as disk:
        deferfs("mount", disk.device, mount)
        make_file(f"{mount}/file", 2000)
        deferfs("umount", mount)
        with disk.device.open("rb") as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        deferfs("mount", disk.device, mount, "-o", "evict=inline,memory=4M")
        try:
            with (mount / "file").open("rb"):
                (mount / "file").unlink()
                os.sync()
                disk.set_preset("read=400")
        finally:
            done = deferfs("umount", mount)
            disk.set_preset("none")
        assert (done.stdout, "still" in done.stderr.replace("still writing everything back", "")) == ("", False)
        deferfs("fsck", "-n", disk.device)


def test_inodegc_is_pushed_flushed_stopped_and_started(plain: Scratch) -> None:
    mount = plain.mount()
    make_backlog(plain, mount, 50)
    inner = mount / "tree" / "inner"
    inner.mkdir(parents=True)
    for number in range(10):
        (inner / str(number)).write_bytes(bytes(5000))
    handle = os.open(inner, os.O_RDONLY)
    ino = os.fstat(handle).st_ino
    run("rm", "-r", mount / "tree")
    wait_until(lambda: plain.statistics().gc.queued >= 60, "the kernel to forget them")
    done = deferfs("ctl", mount, "gc=flush:1", "gc=push")
    assert done.stdout.splitlines() == ["gc=flush:1", "gc=push"]
    assert plain.statistics().gc.queued >= 60  # nothing runs while it is stopped
    plain.control("gc=start", f"gc=flush-below:{ino}", "gc=flush")
    assert plain.statistics().gc.queued == 0
    os.close(handle)
    plain.drain()
    for wrong in ("gc=flush:", "gc=flush:x", "gc=", "gc=dance", "freeze=2", "throttle_inodes=0", "drain=-1"):
        assert deferfs("ctl", mount, wrong, code=None).returncode in (1, 2)
    plain.unmount_and_check()


def test_a_freeze_and_a_request_to_stop_inodegc_do_not_change_each_other(plain: Scratch) -> None:
    mount = plain.mount()
    plain.control("gc=stop", "freeze=1")
    refused = deferfs("ctl", mount, "gc=start", code=1)
    assert "(frozen: thaw it first)" in refused.stderr
    plain.control("freeze=0")
    assert plain.statistics().gc.stopped
    plain.control("gc=start", "ro=1")
    refused = deferfs("ctl", mount, "gc=start", code=1)
    assert "(mounted read-only)" in refused.stderr
    plain.control("ro=0")
    assert not plain.statistics().gc.stopped
    plain.unmount_and_check()


# --- a deleted file ---


@pytest.mark.machine
def test_a_deleted_file_has_no_name_but_works_while_it_is_open(scratch: Scratch) -> None:
    mount = scratch.mount()
    descriptor = os.open(mount / "file", os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"x" * 50_000)
    os.unlink(mount / "file")
    drop_kernel_caches()
    with pytest.raises(FileNotFoundError):
        os.stat(mount / "file")
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    os.close(descriptor)
    drop_kernel_caches()
    assert os.pread(again, 99_999, 0) == b"x" * 50_000
    os.pwrite(again, b"y" * 50_000, 50_000)
    os.fsync(again)
    assert scratch.statistics().inodes.held_orphans == 1
    descriptor = os.open(f"/proc/self/fd/{again}", os.O_RDONLY)
    os.close(again)
    assert os.pread(descriptor, 99_999, 50_000) == b"y" * 50_000
    os.close(descriptor)
    scratch.drain()
    assert scratch.statistics().inodes.held_orphans == 0
    scratch.unmount_and_check()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_full_filesystem_takes_a_file_of_the_size_of_the_one_deleted_before(
    make_scratch: MakeScratch, evict: str, cache: str
) -> None:
    """Always, and at once: `rm big && dd`."""
    scratch = make_scratch(evict=evict, size="32M")
    mount = scratch.mount(f"writeback_cache={cache}")
    size = os.statvfs(mount).f_bavail * 4096 * 97 // 100
    command = ("dd", "if=/dev/zero", f"of={mount}/big", "bs=64k", f"count={size}", "iflag=count_bytes")
    run(*command)
    for _ in range(10):
        (mount / "big").unlink()
        run(*command)
        assert (mount / "big").stat().st_size == size
    scratch.unmount_and_check()


# --- what is counted, and trimmed, by number ---


def test_inodes_count_as_free_once_they_are_deleted(plain: Scratch) -> None:
    """What `df -i` tells after `rm`, while inodegc has not taken up one of them."""
    mount = plain.mount()
    (mount / "backlog").mkdir()
    (mount / "backlog").rmdir()
    plain.drain()

    def used() -> int:
        found = os.statvfs(mount)
        return found.f_files - found.f_ffree

    empty = used()
    make_backlog(plain, mount, 200)
    assert plain.statistics().space.orphans == 200
    assert used() == empty + 1, "the directory that they were in"
    plain.control("gc=start")
    plain.drain()
    assert used() == empty + 1
    plain.unmount_and_check()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_file_that_was_to_be_trimmed_leaves_its_number_to_a_directory(plain: Scratch, cache: str) -> None:
    """Nothing is trimmed but what has the number and the generation that was noted."""
    mount = plain.mount(f"writeback_cache={cache}")

    def grown(name: str) -> int:
        """An open file with blocks past EOF."""
        descriptor = os.open(mount / name, os.O_CREAT | os.O_WRONLY)
        for _ in range(8):
            os.write(descriptor, bytes(100_000))
            os.fsync(descriptor)
        return descriptor

    def with_blocks_past_eof() -> int:
        return plain.statistics().space.preallocated_files

    first = grown("first")
    assert with_blocks_past_eof() == 1
    ino = os.fstat(first).st_ino
    os.unlink(mount / "first")
    os.close(first)
    plain.drain()
    (mount / "directory").mkdir()
    assert (mount / "directory").stat().st_ino == ino
    assert with_blocks_past_eof() == 0
    second = grown("second")
    assert with_blocks_past_eof() == 1
    plain.control("preallocation_lifetime=0.1")  # those that have not grown for longer come first
    wait_until(lambda: with_blocks_past_eof() == 0, "the second to be trimmed")
    os.close(second)
    assert "trimming" not in plain.log.read_text()
    plain.unmount_and_check()


# --- the daemon's own memory ---


_READ_BACK = """
import ctypes, sys, threading
from deferfs.mount.host import syscalls
try:
    syscalls.set_io_flusher()
except PermissionError:
    print("refused")
    sys.exit()
found = []
def look():
    found.append(ctypes.CDLL(None).prctl(58, 0, 0, 0, 0))
for thread in [threading.Thread(target=look) for _ in range(3)]:
    thread.start(); thread.join()
print(found)
"""


def test_every_thread_of_the_daemon_is_an_io_flusher() -> None:
    """PR_SET_IO_FLUSHER is inherited by the threads that start after it; the daemon sets it before any."""
    done = run(sys.executable, "-P", "-c", _READ_BACK)
    if done.stdout.strip() == "refused":
        pytest.skip("PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE")
    assert done.stdout.strip() == "[1, 1, 1]"


def test_signals_do_not_end_the_cleanup(plain: Scratch) -> None:
    mount = plain.mount()
    make_backlog(plain, mount, 500)

    def left() -> int:
        return plain.statistics().space.orphans

    def left_after_a_signal() -> int:
        os.kill(plain.pid, signal.SIGUSR1)
        return left()

    plain.control("gc=start")
    wait_until(lambda: not left_after_a_signal(), "the cleanup to end")
    plain.drain()
    plain.unmount_and_check()
