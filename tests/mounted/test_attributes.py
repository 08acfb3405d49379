"""Kinds of files, links, modes, owners, times and extended attributes, also after a remount."""

from __future__ import annotations

import errno
import os
import socket
import stat
from threading import Thread

import pytest

from deferfs.mount.host import file_clock, syscalls
from tests.mounted.expect import fails_with
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, run

pytestmark = [pytest.mark.mounted, pytest.mark.needs("getfattr", "setfattr")]


def test_special_files(plain: Scratch) -> None:
    mount = plain.mount("dev")
    os.mkfifo(mount / "fifo", 0o620)
    os.mknod(mount / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(mount / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
    directory = os.open(mount, os.O_RDONLY)
    address = f"/proc/self/fd/{directory}/socket"  # a path longer than 108 bytes would be no address
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(address)
        server.listen()
        client.connect(address)
    os.close(directory)
    (mount / "null").write_bytes(b"gone")
    assert (mount / "null").read_bytes() == b""
    reader = os.open(mount / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(mount / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 10) == b"through"
    os.close(reader)
    os.close(writer)
    for _ in range(2):
        kinds = {path.name: stat.S_IFMT(path.stat().st_mode) for path in mount.iterdir()}
        assert kinds == {
            "fifo": stat.S_IFIFO,
            "null": stat.S_IFCHR,
            "disk": stat.S_IFBLK,
            "socket": stat.S_IFSOCK,
        }
        assert (mount / "null").stat().st_rdev == os.makedev(1, 3)
        assert (mount / "disk").stat().st_rdev == os.makedev(259, 70_000)
        plain.remount("dev")
    plain.unmount_and_check()


def test_symlinks(plain: Scratch) -> None:
    mount = plain.mount()
    for length in (1, 59, 60, 200, 300, 400, 500, 4094, 4095):
        os.symlink("t" * length, mount / f"link{length}")
    with fails_with(errno.ENAMETOOLONG):
        os.symlink("t" * 4096, mount / "too long")
    (mount / "loop").symlink_to("loop")
    with fails_with(errno.ELOOP):
        (mount / "loop").read_bytes()
    for _ in range(2):
        for path in mount.glob("link*"):
            length = int(path.name.removeprefix("link"))
            assert os.readlink(path) == "t" * length
            assert path.lstat().st_size == length
        plain.remount()
    plain.unmount_and_check()


def test_hard_links(scratch: Scratch) -> None:
    mount = scratch.mount()
    (mount / "directory").mkdir()
    (mount / "one").write_text("content")
    for number in range(200):
        os.link(mount / "one", mount / "directory" / f"link{number}")
    with fails_with(errno.EPERM):
        os.link(mount / "directory", mount / "no")
    (mount / "one").unlink()
    scratch.remount()
    statuses = [path.stat() for path in (mount / "directory").iterdir()]
    assert {status.st_nlink for status in statuses} == {200}
    assert len({status.st_ino for status in statuses}) == 1
    assert (mount / "directory" / "link77").read_text() == "content"
    for path in (mount / "directory").iterdir():
        path.unlink()
    scratch.drain()
    scratch.unmount_and_check()


def test_modes_owners_and_times(plain: Scratch) -> None:
    mount = plain.mount()
    path = mount / "file"
    path.touch()
    path.chmod(0o7321)
    assert stat.S_IMODE(path.stat().st_mode) == 0o7321
    os.chown(path, 4_000_000_000, 77)
    os.utime(path, ns=(1_111_111_111_111_111_111, -999_999_999))
    for _ in range(2):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (4_000_000_000, 77)
        assert (status.st_atime_ns, status.st_mtime_ns) == (1_111_111_111_111_111_111, -999_999_999)
        plain.remount()
    before = path.stat()
    os.utime(path)
    after = path.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns
    plain.unmount_and_check()


def test_times_follow_changes(plain: Scratch) -> None:
    """What must change the times of a file or directory does, and is the same after a remount."""
    mount = plain.mount()
    path = mount / "file"
    path.write_text("one")
    os.utime(mount, ns=(1, 1))
    os.utime(path, ns=(1, 1))
    path.write_text("two")
    assert path.stat().st_mtime_ns > 1
    assert mount.stat().st_mtime_ns == 1
    path.rename(mount / "renamed")
    assert mount.stat().st_mtime_ns > 1
    times = (mount / "renamed").stat().st_mtime_ns, mount.stat().st_mtime_ns
    plain.remount()
    assert ((mount / "renamed").stat().st_mtime_ns, mount.stat().st_mtime_ns) == times
    plain.unmount_and_check()


# --- extended attributes ---
def test_times_that_the_kernel_writes_back_do_not_undo_those_of_a_truncate_served_before(plain: Scratch) -> None:
    """The kernel writes the times of a write back without the inode's lock, while a truncate waits for its answer."""
    mount = plain.mount()
    for number in range(8):
        path = mount / f"file{number}"
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(file, bytes(4096), 0)
        plain.control("freeze=1")
        os.pwrite(file, bytes(4096), 0)
        written = os.fstat(file).st_mtime_ns
        wait_until(lambda: file_clock.coarse() > written, "the next tick")  # noqa: B023
        threads = [Thread(target=os.truncate, args=(path, 100)), Thread(target=syscalls.syncfs, args=(file,))]
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda: plain.statistics().freeze.waiting == waiting, "the request to wait")  # noqa: B023
        plain.control("thaw=1")
        for thread in threads:
            thread.join()
        os.close(file)
        assert path.stat().st_mtime_ns > written
    shown = [path.stat().st_mtime_ns for path in sorted(mount.iterdir())]
    plain.remount()
    assert [path.stat().st_mtime_ns for path in sorted(mount.iterdir())] == shown
    plain.unmount_and_check()


def test_extended_attributes(plain: Scratch) -> None:
    mount = plain.mount()
    for path in (mount / "file", mount / "directory"):
        path.mkdir() if path.name == "directory" else path.touch()
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.small", b"small")
        os.setxattr(path, "user.large", bytes(range(256)) * 256)
        os.setxattr(path, "security.capability", b"\1\0\0\2\0\4\0\0" + bytes(12))
        os.setxattr(path, "trusted.root", b"only")
        os.setxattr(path, "user." + "n" * 250, b"long name")
        with fails_with(errno.ENODATA):
            os.getxattr(path, "user.none")
        with fails_with(errno.ENODATA):
            os.removexattr(path, "user.none")
        with fails_with(errno.EEXIST):
            os.setxattr(path, "user.small", b"", os.XATTR_CREATE)
        with fails_with(errno.ENODATA):
            os.setxattr(path, "user.none", b"", os.XATTR_REPLACE)
        with fails_with(errno.E2BIG, errno.ERANGE):
            os.setxattr(path, "user.huge", bytes(65_537))
        with fails_with(errno.EOPNOTSUPP):
            os.setxattr(path, "unknown.namespace", b"")
    plain.remount()
    for path in (mount / "file", mount / "directory"):
        names = ["security.capability", "trusted.root", "user.empty", "user.large", "user." + "n" * 250, "user.small"]
        assert sorted(os.listxattr(path)) == sorted(names)
        assert os.getxattr(path, "user.large") == bytes(range(256)) * 256
        assert os.getxattr(path, "user.empty") == b""
        assert os.getxattr(path, "user." + "n" * 250) == b"long name"
        os.setxattr(path, "user.small", b"replaced", os.XATTR_REPLACE)
        os.removexattr(path, "user.large")
        assert run("getfattr", "--only-values", "-n", "user.small", path).stdout == "replaced"
    (mount / "file").unlink()
    (mount / "directory").rmdir()
    plain.drain()
    plain.unmount_and_check()
