"""An image file or a block device.

**Invariant:** once a flush has failed, no later flush succeeds. Linux reports a failed writeback once and then marks
the pages clean, so that a second fdatasync would report success although data is lost.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Self

from deferfs.device.base import Buffer, check_range, check_write
from deferfs.device.identity import Identity, identity_of
from deferfs.device.punch import punch_hole
from deferfs.device.record_lock import HELD_BY_OTHERS, lock_range
from deferfs.device.relatives import hold_relatives
from deferfs.errors import DeviceError, ImageError, ImageInUseError

_IOV_MAX: Final = os.sysconf("SC_IOV_MAX")
"""Maximum number of buffers in one pwritev."""
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
"""The errnos of a kernel, filesystem or device that lacks an operation."""


class FileDevice:
    """A device on an open file descriptor. Create it with `open` or `create`."""

    def __init__(self, fd: int, name: str, *, writable: bool) -> None:
        self.name = name
        self.writable = writable
        self._fd = fd
        self._can_read_nowait = True
        self._in_memory = False
        self._can_punch = True
        self._flush_errno = 0
        self._held: list[int] = []
        """Descriptors that lock the file behind a loop device, and the loop devices over a file."""
        self.size = os.lseek(fd, 0, os.SEEK_END)

    @classmethod
    def open(cls, path: str, *, writable: bool, lock: bool = True) -> Self:
        """Open an existing image file or block device.

        With `lock`, a writer excludes all other processes and readers exclude writers, until `close`. Raises
        `ImageError` when the path cannot be opened or is neither kind of file, `ImageInUseError` when another process
        has it open.
        """
        is_block_device = stat.S_ISBLK(_mode(path))
        flags = os.O_RDWR if writable else os.O_RDONLY
        if is_block_device and writable and lock:
            # The kernel's exclusive claim, which also excludes a mount, a RAID or swap on it.
            flags |= os.O_EXCL
        if not is_block_device:
            flags |= os.O_NONBLOCK  # in case the path is a FIFO by now
        with _for_the_user(path):
            fd = os.open(path, flags | os.O_CLOEXEC)
        return cls._locked(fd, path, writable=writable, lock=lock, is_block_device=is_block_device)

    @classmethod
    def create(cls, path: str, size: int) -> Self:
        """Create a sparse image file of `size` bytes, locked for writing. Only its owner may read it: an image holds
        the files of all users of the mount, and a reader can lock it.

        Raises `ImageError` when the path exists or cannot be created; then no file is left behind.
        """
        with _for_the_user(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            device = cls._locked(fd, path, writable=True, lock=True, is_block_device=False)
            try:
                device.resize(size)
            except DeviceError as error:
                device.close()
                raise ImageError(f"{path}: {size} bytes: {error.strerror}") from error
        except BaseException:
            os.unlink(path)
            raise
        return device

    @classmethod
    def _locked(cls, fd: int, path: str, *, writable: bool, lock: bool, is_block_device: bool) -> Self:
        try:
            _require_kind(os.fstat(fd).st_mode, path)
            if lock:
                _lock(fd, path, exclusive=writable, is_block_device=is_block_device)
            device = cls(fd, path, writable=writable)
            if lock:
                device._held = hold_relatives(fd, path, exclusive=writable, is_block_device=is_block_device)
            return device
        except BaseException:
            os.close(fd)
            raise

    def resize(self, size: int) -> None:
        """Change the size of an image file, in bytes. Added bytes read as zeros.

        Raises `DeviceError`: EINVAL for a block device, EFBIG and the like from the filesystem below.
        """
        check_write(self, 0, 0)
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            if error.errno == errno.EFBIG:
                text = "more than a file of the filesystem that it is on can have; give a smaller --size"
                raise DeviceError(errno.EFBIG, text, self.name) from error
            raise self._failure("resize", error) from error
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`."""
        check_range(self, offset, length)
        try:
            data = os.pread(self._fd, length, offset)
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    raise OSError(errno.EIO, f"the image has shrunk to {offset + len(data)} bytes")
                data += more
        except OSError as error:
            raise self._failure("read", error) from error
        return data

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """As `read` when all of it is in the page cache, else None.

        The first call detects a filesystem without RWF_NOWAIT. Then all calls return None, except on tmpfs, where they
        read, because it has no disk to wait for.
        """
        if not self._can_read_nowait:
            return self.read(offset, length) if self._in_memory else None
        check_range(self, offset, length)
        data = bytearray(length)
        try:
            count = os.preadv(self._fd, (data,), offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                self._can_read_nowait = False
                self._in_memory = _is_on_tmpfs(self._fd)
            return None  # a read error will recur in the blocking read, which reports it
        return bytes(data) if count == length else None

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`."""
        check_write(self, offset, len(data))
        try:
            self._write_all(offset, data)
        except OSError as error:
            raise self._failure("write", error) from error

    def writev(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write `buffers` one after the other from `offset` on, in few system calls."""
        check_write(self, offset, sum(map(len, buffers)))
        try:
            for start in range(0, len(buffers), _IOV_MAX):
                batch = buffers[start : start + _IOV_MAX]
                length = sum(map(len, batch))
                count = os.pwritev(self._fd, batch, offset)
                if count < length:
                    self._write_all(offset + count, b"".join(batch)[count:])
                offset += length
        except OSError as error:
            raise self._failure("write", error) from error

    def _write_all(self, offset: int, data: Buffer) -> None:
        count = os.pwrite(self._fd, data, offset)
        while count < len(data):
            count += os.pwrite(self._fd, memoryview(data)[count:], offset + count)

    def flush(self) -> None:
        """Make everything written before durable (fdatasync)."""
        if self._flush_errno:
            raise DeviceError(self._flush_errno, "an earlier flush has failed", self.name)
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._flush_errno = error.errno or errno.EIO
            raise self._failure("flush", error) from error

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole, if the filesystem or device below can."""
        check_write(self, offset, length)
        if not self._can_punch or length == 0:
            return
        try:
            punch_hole(self._fd, offset, length)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise self._failure("discard", error) from error
            self._can_punch = False

    def identity(self) -> Identity:
        """Device and inode number, which do not depend on its name."""
        return identity_of(self._fd)

    def names(self) -> int:
        """Number of hard links of the image file; 0 when it vanishes on close. 1 for a block device."""
        status = os.fstat(self._fd)
        return 1 if stat.S_ISBLK(status.st_mode) else status.st_nlink

    def close(self) -> None:
        """Close the descriptor, which releases the lock."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        while self._held:
            os.close(self._held.pop())

    def _failure(self, request: str, error: OSError) -> DeviceError:
        text = f"{request}: {error.strerror or error}"
        return DeviceError(error.errno or errno.EIO, text, self.name)


def _mode(path: str) -> int:
    with _for_the_user(path):
        mode = os.stat(path).st_mode
    _require_kind(mode, path)
    return mode


def _require_kind(mode: int, path: str) -> None:
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return
    kind = "a directory" if stat.S_ISDIR(mode) else "a special file"
    raise ImageError(f"{path}: is {kind}; give an image file or a block device")


def _is_on_tmpfs(fd: int) -> bool:
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    if not stat.S_ISREG(status.st_mode):
        return False
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as mounts:
        return any(line.split(" ")[2] == device and " - tmpfs " in line for line in mounts)


@contextmanager
def _for_the_user(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _in_use(path) from error
        raise ImageError(f"{path}: {error.strerror or error}") from error


def _lock(fd: int, path: str, *, exclusive: bool, is_block_device: bool) -> None:
    """Lock without waiting, or raise `ImageInUseError`.

    Either lock belongs to the open file description, so that a daemon's child inherits it. Block devices get a record
    lock, because udev takes a flock for a moment after every close by a writer, which would make a mount right after
    a mkfs fail.
    """
    try:
        if is_block_device:
            lock_range(fd, 0, 0, exclusive=exclusive)
        else:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD_BY_OTHERS:
            raise _in_use(path) from error
        raise ImageError(f"{path}: cannot be locked: {error.strerror}") from error


def _in_use(path: str) -> ImageInUseError:
    return ImageInUseError(f"{path}: in use by another process; unmount it first (deferfs umount)")
