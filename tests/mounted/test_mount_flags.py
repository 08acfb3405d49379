"""What mount flags change: nothing at all on a read-only mount, and when reading changes access times."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mounted.expect import fails_with
from tests.mounted.scratch import Scratch, drop_kernel_caches

pytestmark = pytest.mark.mounted

OLD_NS = 1_000_000_000
CLOCK_REALTIME_COARSE = 5
"""Of <time.h>; Python does not name it."""


# --- read-only ---
CHANGES: dict[str, Callable[[], object]] = {
    "create": lambda: os.open("new", os.O_CREAT | os.O_WRONLY),
    "create exclusively": lambda: os.open("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
    "open for writing": lambda: os.open("file", os.O_WRONLY),
    "open for reading and writing": lambda: os.open("file", os.O_RDWR),
    "open for appending": lambda: os.open("file", os.O_WRONLY | os.O_APPEND),
    "open and truncate": lambda: os.open("file", os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda: os.truncate("file", 0),
    "mkdir": lambda: os.mkdir("new"),
    "rmdir": lambda: os.rmdir("directory"),
    "unlink": lambda: os.unlink("file"),
    "rename": lambda: os.rename("file", "new"),
    "rename over": lambda: os.rename("file", "other"),
    "link": lambda: os.link("file", "new"),
    "symlink": lambda: os.symlink("file", "new"),
    "mkfifo": lambda: os.mkfifo("new"),
    "mknod": lambda: os.mknod("new", 0o600 | stat.S_IFREG),
    "chmod": lambda: os.chmod("file", 0o600),
    "chown": lambda: os.chown("file", 1, 1),
    "lchown": lambda: os.chown("link", 1, 1, follow_symlinks=False),
    "utime": lambda: os.utime("file", (1, 1)),
    "setxattr": lambda: os.setxattr("file", "user.a", b"v"),
    "removexattr": lambda: os.removexattr("file", "user.kept"),
    "remove a list": lambda: os.removexattr("file", "system.posix_acl_access"),
}
"""All that a program may try."""


def test_nothing_changes_on_a_read_only_mount(plain: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = plain.mount()
    (mount / "file").write_text("content")
    (mount / "other").write_text("other")
    (mount / "directory").mkdir()
    (mount / "link").symlink_to("file")
    os.setxattr(mount / "file", "user.kept", b"v")
    os.utime(mount / "file", ns=(OLD_NS, OLD_NS))
    plain.unmount_and_check()
    image = plain.image.read_bytes()
    plain.mount("ro")
    with monkeypatch.context() as context:
        context.chdir(mount)
        for name, change in CHANGES.items():
            with fails_with(errno.EROFS):
                change()
                pytest.fail(f"{name} is possible")
        assert sorted(os.listdir()) == ["directory", "file", "link", "other"]
        assert Path("file").read_text() == "content"
        assert os.stat("file").st_atime_ns == OLD_NS
        assert os.getxattr("file", "user.kept") == b"v"
        with fails_with(errno.EEXIST):
            os.mkdir("directory")
        with fails_with(errno.ENOENT, errno.EROFS):
            os.unlink("none")
        assert not os.access("file", os.W_OK)
        descriptor = os.open("file", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    plain.unmount()
    assert plain.image.read_bytes() == image


# --- sync and dirsync ---
@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("flag", ["sync", "dirsync"])
def test_answered_changes_survive_the_daemon(plain: Scratch, flag: str, cache: str) -> None:
    """Names with either, content and attributes with `sync`: no fsync, and the next commit is minutes away."""
    words = (flag, "commit=300", f"writeback_cache={cache}")
    mount = plain.mount(*words)
    (mount / "gone").touch()
    (mount / "old").touch()
    (mount / "file").touch()
    plain.remount(*words)
    (mount / "directory").mkdir()
    (mount / "gone").unlink()
    (mount / "old").rename(mount / "new")
    if flag == "sync":
        (mount / "file").write_bytes(b"content")
        (mount / "file").chmod(0o600)
        os.setxattr(mount / "file", "user.a", b"v")
    plain.kill()
    plain.detach()
    plain.mount()
    assert sorted(os.listdir(mount)) == ["directory", "file", "new"]
    if flag == "sync":
        assert (mount / "file").read_bytes() == b"content"
        assert stat.S_IMODE((mount / "file").stat().st_mode) == 0o600
        assert os.getxattr(mount / "file", "user.a") == b"v"
    plain.unmount_and_check()


# --- access times ---
READS: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.read_bytes(),
    "directory": lambda path: os.listdir(path),
    "link": lambda path: os.readlink(path),
}


def atimes(mount: Path) -> dict[str, int]:
    return {name: (mount / name).lstat().st_atime_ns for name in READS}


@pytest.mark.parametrize(
    ("flag", "first", "second"),
    [
        ("relatime", {"file", "directory", "link"}, set()),
        ("strictatime", {"file", "directory", "link"}, {"file", "directory", "link"}),
        ("noatime", set(), set()),
        ("nodiratime", {"file", "link"}, set()),
        ("lazytime", {"file", "directory", "link"}, set()),
    ],
)
@pytest.mark.parametrize(
    "cached", [True, pytest.param(False, marks=[pytest.mark.machine, pytest.mark.long])], ids=["cached", "cold"]
)
def test_access_times_change_by_mount_flag(
    plain: Scratch, flag: str, first: set[str], second: set[str], cached: bool
) -> None:
    """All are older than the last change; then they are not. What was noted is there after a remount."""
    mount = plain.mount(flag)
    (mount / "file").write_text("content")
    (mount / "directory").mkdir()
    (mount / "directory" / "entry").touch()
    (mount / "link").symlink_to("file")
    for name in READS:
        os.utime(mount / name, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    plain.remount(flag)
    if cached:
        (mount / "file").read_bytes()
        os.utime(mount / "file", ns=(OLD_NS, OLD_NS))
    for expected in (first, second):
        before = atimes(mount)
        if not cached:
            drop_kernel_caches()
        tick()
        for name, read in READS.items():
            read(mount / name)
        after = atimes(mount)
        assert {name for name in READS if after[name] != before[name]} == expected
        assert all(after[name] >= before[name] for name in READS)
    plain.remount(flag)
    assert atimes(mount) == after
    plain.unmount_and_check()


def tick() -> None:
    """Until the clock of access times, which is coarse, has gone past now."""
    now = time.time_ns()
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= now:
        time.sleep(0.0005)


def test_statfs_counts_inodes(scratch: Scratch) -> None:
    """Each inode that is made counts, each name does not, and deleting gives all back."""
    mount = scratch.mount()
    scratch.drain()

    def used() -> int:
        found = os.statvfs(mount)
        assert found.f_favail == found.f_ffree
        return found.f_files - found.f_ffree

    empty = used()
    for number in range(100):
        (mount / f"file{number}").touch()
    assert used() == empty + 100
    (mount / "directory").mkdir()
    (mount / "link").symlink_to("file1")
    os.mkfifo(mount / "fifo")
    assert used() == empty + 103
    for number in range(50):
        os.link(mount / "file1", mount / f"name{number}")
    assert used() == empty + 103
    scratch.remount()
    assert used() == empty + 103
    for path in mount.iterdir():
        path.rmdir() if path.name == "directory" else path.unlink()
    scratch.drain()
    assert used() == empty
    scratch.unmount_and_check()
