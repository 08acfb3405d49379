"""The content of files: deleted, sparse, large, truncated, mapped, appended to, locked; and the mount as a whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import subprocess
import sys

import pytest

from deferfs.limits import FILE_BYTES_MAX
from tests.mounted.expect import fails_with
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, run

pytestmark = pytest.mark.mounted


# --- deleted but open ---
def test_deleted_but_open_file(scratch: Scratch) -> None:
    mount = scratch.mount()
    fresh = scratch.space()
    path = mount / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"before " * 100_000)
    path.unlink()
    assert os.fstat(descriptor).st_nlink == 0
    assert os.readlink(f"/proc/self/fd/{descriptor}") == f"{path} (deleted)"
    assert os.pread(descriptor, 7, 699_993) == b"before "
    os.pwrite(descriptor, b"after", 2_000_000)
    os.fsync(descriptor)
    assert os.pread(descriptor, 10, 1_999_995) == b"\0" * 5 + b"after"
    os.ftruncate(descriptor, 10)
    assert os.fstat(descriptor).st_size == 10
    os.fchmod(descriptor, 0o600)
    os.setxattr(f"/proc/self/fd/{descriptor}", "user.late", b"value")
    path.write_bytes(b"another of the same name")
    assert os.pread(descriptor, 100, 0) == b"before bef"
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    os.close(descriptor)
    assert os.read(again, 100) == b"before bef"
    os.close(again)
    assert path.read_bytes() == b"another of the same name"
    path.unlink()
    scratch.drain()
    assert scratch.space() == fresh
    scratch.unmount_and_check()


def test_deleted_directory_that_is_still_used(scratch: Scratch) -> None:
    mount = scratch.mount()
    fresh = scratch.space()
    (mount / "directory").mkdir()
    descriptor = os.open(mount / "directory", os.O_RDONLY)
    (mount / "directory").rmdir()
    assert os.fstat(descriptor).st_nlink == 0
    assert os.listdir(descriptor) == []
    with fails_with(errno.ENOENT):
        os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    with fails_with(errno.ENOENT):
        os.mkdir("directory", dir_fd=descriptor)
    os.close(descriptor)
    scratch.drain()
    assert scratch.space() == fresh
    scratch.unmount_and_check()


def test_o_tmpfile_is_refused_with_an_errno_that_programs_expect(plain: Scratch) -> None:
    """Programs fall back to a named temporary file when O_TMPFILE is refused in this way."""
    mount = plain.mount()
    with fails_with(errno.EOPNOTSUPP, errno.EISDIR):
        os.open(mount, os.O_TMPFILE | os.O_RDWR, 0o600)
    plain.unmount_and_check()


# --- sizes ---
def test_sparse_file(scratch: Scratch) -> None:
    mount = scratch.mount()
    path = mount / "sparse"
    islands = {0: b"first", 5_000_000_000: b"past 4 GiB", (1 << 40) + 4095: b"over a block's edge"}
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    for offset, data in islands.items():
        os.pwrite(descriptor, data, offset)
    os.close(descriptor)
    for again in range(2):
        status = path.stat()
        assert status.st_size == (1 << 40) + 4095 + 19
        with path.open("rb") as file:
            for offset, data in islands.items():
                assert os.pread(file.fileno(), len(data), offset) == data
            assert os.pread(file.fileno(), 8192, 1 << 35) == bytes(8192)
        if again == 0:
            scratch.remount()
    assert path.stat().st_blocks * 512 <= 64 * 1024
    os.truncate(path, 5_000_000_004)
    os.truncate(path, 5_000_000_010)
    with path.open("rb") as file:
        assert os.pread(file.fileno(), 20, 5_000_000_000) == b"past" + bytes(6)
    scratch.unmount_and_check()


def test_largest_file(plain: Scratch) -> None:
    path = plain.mount() / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"end", FILE_BYTES_MAX - 3)
    assert path.stat().st_size == FILE_BYTES_MAX
    with fails_with(errno.EFBIG):
        os.ftruncate(descriptor, FILE_BYTES_MAX + 1)
    os.fsync(descriptor)
    with fails_with(errno.EFBIG):
        os.pwrite(descriptor, b"x", FILE_BYTES_MAX)
        os.fsync(descriptor)
    os.close(descriptor)
    plain.remount()
    with path.open("rb") as file:
        assert os.pread(file.fileno(), 10, FILE_BYTES_MAX - 5) == b"\0\0end"
    plain.unmount_and_check()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_truncate_and_extend_show_zeros(scratch: Scratch, cache: str) -> None:
    """Each length around the sizes where the form of the data changes; the old bytes must never show again."""
    scratch.mount(f"writeback_cache={cache}")
    full = bytes(range(1, 256)) * 100
    lengths = [0, 1, 100, 300, 400, 4095, 4096, 4097, 12_288, 20_000]
    for length in lengths:
        path = scratch.mountpoint / f"file{length}"
        path.write_bytes(full)
        os.truncate(path, length)
        os.truncate(path, 25_000)
    for _ in range(2):
        for length in lengths:
            content = (scratch.mountpoint / f"file{length}").read_bytes()
            assert content == full[:length] + bytes(25_000 - length), length
        scratch.remount(f"writeback_cache={cache}")
    scratch.unmount_and_check()


def test_o_trunc_and_overwriting(plain: Scratch) -> None:
    path = plain.mount() / "file"
    for length in (300_000, 10, 0, 5000, 299):
        path.write_bytes(b"x" * length)
        assert path.stat().st_size == length
        assert path.read_bytes() == b"x" * length
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    assert os.fstat(descriptor).st_size == 0
    os.close(descriptor)
    plain.remount()
    assert path.read_bytes() == b""
    plain.unmount_and_check()


# --- ways to write ---
@pytest.mark.parametrize("cache", ["on", "off"])
def test_shared_mapping(plain: Scratch, cache: str) -> None:
    options = f"writeback_cache={cache}"
    path = plain.mount(options) / "file"
    path.write_bytes(bytes(1 << 20))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[5000:5007] = b"written"
        mapping[1 << 19 : (1 << 19) + 3] = b"far"
        mapping.flush()
        assert os.pread(file.fileno(), 7, 5000) == b"written"
    plain.remount(options)
    content = path.read_bytes()
    assert content[5000:5007] == b"written"
    assert content[1 << 19 : (1 << 19) + 3] == b"far"
    assert len(content.replace(b"\0", b"")) == 10
    plain.unmount_and_check()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_append_from_two_processes(plain: Scratch, cache: str) -> None:
    path = plain.mount(f"writeback_cache={cache}") / "log"
    program = (
        "import os, sys\n"
        "file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "for number in range(300): os.write(file, f'{sys.argv[2]} {number:06}\\n'.encode())\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in ("one", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for _ in range(2):
        lines = path.read_text().splitlines()
        for name in ("one", "two"):
            mine = [line for line in lines if line.startswith(name)]
            assert mine == [f"{name} {number:06}" for number in range(300)]
        assert len(lines) == 600
        plain.remount()
    plain.unmount_and_check()


def test_direct_io(plain: Scratch) -> None:
    mount = plain.mount()
    buffer = mmap.mmap(-1, 8192)
    buffer[:] = b"direct! " * 1024
    descriptor = os.open(mount / "direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    assert os.pwritev(descriptor, [buffer], 4096) == 8192
    buffer[:] = bytes(8192)
    assert os.preadv(descriptor, [buffer], 4096) == 8192
    assert buffer[:] == b"direct! " * 1024
    os.close(descriptor)
    plain.remount()
    assert (mount / "direct").read_bytes() == bytes(4096) + b"direct! " * 1024
    plain.unmount_and_check()


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC], ids=["O_SYNC", "O_DSYNC"])
def test_synchronous_writes(plain: Scratch, flag: int, cache: str) -> None:
    """Each is durable when it returns, file and name included, and costs one commit."""
    mount = plain.mount("commit=300", f"writeback_cache={cache}")
    descriptor = os.open(mount / "file", os.O_WRONLY | os.O_CREAT | flag)
    before = plain.statistics().journal.commits_total
    for number in range(20):
        os.write(descriptor, b"%04d" % number * 1024)
    assert plain.statistics().journal.commits_total == before + 20
    plain.kill()
    with contextlib.suppress(OSError):  # the connection has gone
        os.close(descriptor)
    plain.detach()
    plain.mount()
    assert (mount / "file").read_bytes() == b"".join(b"%04d" % number * 1024 for number in range(20))
    plain.unmount_and_check()


def test_copy_file_range_sendfile_and_seek_data(plain: Scratch) -> None:
    mount = plain.mount()
    data = os.urandom(300_000)
    (mount / "source").write_bytes(data)
    with (mount / "source").open("rb") as source, (mount / "target").open("wb") as target:
        left = len(data)
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
        os.sendfile(target.fileno(), source.fileno(), 0, 1000)
        assert os.lseek(source.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(source.fileno(), 0, os.SEEK_HOLE) == len(data)
    plain.remount()
    assert (mount / "target").read_bytes() == data + data[:1000]
    plain.unmount_and_check()


# --- locks ---
def test_locks(plain: Scratch) -> None:
    path = plain.mount() / "file"
    path.write_bytes(bytes(100))
    program = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "try:\n"
        "    if sys.argv[2] == 'flock': fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    else: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, int(sys.argv[3]))\n"
        "except BlockingIOError:\n"
        "    sys.exit(3)\n"
    )

    def other(*arguments: str) -> int:
        return run(sys.executable, "-c", program, path, *arguments, code=None).returncode

    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert other("flock") == 3
        fcntl.flock(file, fcntl.LOCK_UN)
        assert other("flock") == 0
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 0)
        assert other("range", "5") == 3
        assert other("range", "10") == 0
    assert other("range", "5") == 0
    plain.unmount_and_check()


# --- the filesystem as a whole ---
def test_statfs(plain: Scratch) -> None:
    mount = plain.mount()
    before = os.statvfs(mount)
    assert before.f_bsize == before.f_frsize == 4096
    assert before.f_blocks * 4096 == 512 << 20
    assert before.f_namemax == 255
    assert 0 < before.f_bavail <= before.f_bfree < before.f_blocks
    (mount / "file").write_bytes(bytes(10 << 20))
    plain.sync()
    after = os.statvfs(mount)
    used = before.f_bfree - after.f_bfree
    assert 2560 <= used <= 2560 + 1024 + 16  # speculative blocks past EOF may be there until a worker has trimmed them
    wait_until(lambda: before.f_bfree - os.statvfs(mount).f_bfree <= 2560 + 16, "speculative blocks to be trimmed")
    assert after.f_files - after.f_ffree == before.f_files - before.f_ffree + 1
    plain.unmount_and_check()


def test_unmount_of_a_busy_mount(plain: Scratch) -> None:
    mount = plain.mount()
    with (mount / "file").open("w") as file:
        file.write("still here\n")
        done = run(sys.executable, "-m", "deferfs", "umount", mount, code=1)
        assert done.stderr.startswith(f"deferfs: {mount}: busy: used by ")
        assert str(os.getpid()) in done.stderr
        assert run("umount", mount, code=None).returncode != 0
        file.write("and here\n")
    assert (mount / "file").read_text() == "still here\nand here\n"
    plain.unmount_and_check()
