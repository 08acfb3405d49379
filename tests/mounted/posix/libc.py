"""System calls that Python does not wrap, with errors as OSError."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_SYS_RENAMEAT2: Final = 316


class Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Dirent(ctypes.Structure):
    """struct dirent of glibc, 64 bit."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


_libc.opendir.restype = ctypes.c_void_p
_libc.fdopendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.POINTER(Dirent)
_libc.telldir.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.lseek.restype = ctypes.c_long
_libc.getxattr.restype = _libc.listxattr.restype = _libc.syscall.restype = ctypes.c_ssize_t
_libc.readlink.restype = _libc.write.restype = _libc.pwrite.restype = ctypes.c_ssize_t


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    """renameat2(2), relative to the working directory."""
    _checked(_libc.syscall(_SYS_RENAMEAT2, -100, old, -100, new, ctypes.c_uint(flags)))


def linkat(old_directory: int, old: bytes, new_directory: int, new: bytes, flags: int) -> None:
    """linkat(2)."""
    _checked(_libc.linkat(old_directory, old, new_directory, new, flags))


def mknod(path: bytes, mode: int, device: int) -> None:
    """mknod(2), with a mode that Python would not let through."""
    _checked(_libc.mknod(path, ctypes.c_uint(mode), ctypes.c_ulong(device)))


def unlinkat(directory: int, path: bytes, flags: int) -> None:
    """unlinkat(2)."""
    _checked(_libc.unlinkat(directory, path, flags))


def readlink(path: bytes, size: int) -> bytes:
    """readlink(2) into a buffer of `size` bytes."""
    buffer = ctypes.create_string_buffer(max(1, size))
    length = _checked(_libc.readlink(path, buffer, ctypes.c_size_t(size)))
    return buffer.raw[:length]


def getxattr(path: bytes, name: bytes, size: int) -> int:
    """getxattr(2) into a buffer of `size` bytes; the length."""
    buffer = ctypes.create_string_buffer(size or 1)
    return _checked(_libc.getxattr(path, name, buffer if size else None, ctypes.c_size_t(size)))


def listxattr(path: bytes, size: int) -> int:
    """listxattr(2) into a buffer of `size` bytes; the length."""
    buffer = ctypes.create_string_buffer(size or 1)
    return _checked(_libc.listxattr(path, buffer if size else None, ctypes.c_size_t(size)))


def setxattr(path: bytes, name: bytes, value: bytes, flags: int) -> None:
    """setxattr(2), with a name that Python would not let through."""
    _checked(_libc.setxattr(path, name, value, ctypes.c_size_t(len(value)), flags))


def lseek(descriptor: int, offset: int, whence: int) -> int:
    """lseek(2)."""
    return _checked(_libc.lseek(descriptor, ctypes.c_long(offset), whence))


def write_from_nowhere(descriptor: int, length: int) -> int:
    """write(2) of memory that is not there."""
    return _checked(_libc.write(descriptor, ctypes.c_void_p(1), ctypes.c_size_t(length)))


def pwrite(descriptor: int, data: bytes, offset: int) -> int:
    """pwrite(2), with an offset that Python would not let through."""
    return _checked(_libc.pwrite(descriptor, data, ctypes.c_size_t(len(data)), ctypes.c_long(offset)))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    _checked(_libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def utimensat(directory: int, path: bytes | None, atime: tuple[int, int], mtime: tuple[int, int], flags: int) -> None:
    """utimensat(2): times as (seconds, nanoseconds)."""
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    _checked(_libc.utimensat(directory, path, times, flags))


def name_to_handle(path: bytes) -> bytes:
    """name_to_handle_at(2): the file handle."""
    buffer = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(4), 8 + 128)
    mount = ctypes.c_int()
    _checked(_libc.name_to_handle_at(-100, path, buffer, ctypes.byref(mount), 0))
    return buffer.raw[: 8 + int.from_bytes(buffer.raw[:4], "little")]


def open_by_handle(descriptor: int, handle: bytes, flags: int) -> int:
    """open_by_handle_at(2), on the filesystem that `descriptor` is open on."""
    return _checked(_libc.open_by_handle_at(descriptor, ctypes.create_string_buffer(handle, len(handle)), flags))


class Stream:
    """A directory stream: opendir(3), readdir(3), telldir(3), seekdir(3), rewinddir(3)."""

    def __init__(self, path: bytes) -> None:
        address = _libc.opendir(path)
        if address is None:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._stream = ctypes.c_void_p(address)

    def read(self) -> bytes | None:
        """The next name."""
        ctypes.set_errno(0)
        entry = _libc.readdir(self._stream)
        if not entry:
            if ctypes.get_errno():
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return None
        return bytes(entry.contents.name)

    def tell(self) -> int:
        """telldir(3)."""
        return int(_libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        """seekdir(3)."""
        _libc.seekdir(self._stream, ctypes.c_long(place))

    def rewind(self) -> None:
        """rewinddir(3)."""
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        """closedir(3)."""
        _libc.closedir(self._stream)


def map_memory(length: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
    """mmap(2): the address."""
    address = _libc.mmap(
        None, ctypes.c_size_t(length), protection, flags, descriptor, ctypes.c_long(offset)
    )  # MAP_FAILED is -1
    if address is None or address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(address)


def unmap_memory(address: int, length: int) -> None:
    """munmap(2)."""
    _checked(_libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length)))


def sync_memory(address: int, length: int, flags: int) -> None:
    """msync(2)."""
    _checked(_libc.msync(ctypes.c_void_p(address), ctypes.c_size_t(length), flags))
