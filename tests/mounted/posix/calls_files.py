"""Calls on open files: read, write, seek, size, sync; mmap; locks; execution."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import mmap
import os
import socket
import struct
import subprocess

from tests.mounted.posix import libc
from tests.mounted.posix.machine import Case, Descriptor, call

_LOCK = "hhqqi4x"
"""struct flock of 64-bit Linux."""


@call
def open_(case: Case, path: bytes, flags: int, mode: int = 0o666) -> Descriptor:
    return Descriptor(os.open(path, flags, mode))


@call
def openat(case: Case, directory: int, path: bytes, flags: int, mode: int = 0o666) -> Descriptor:
    return Descriptor(os.open(path, flags, mode, dir_fd=directory))


@call
def close(case: Case, descriptor: int) -> None:
    os.close(descriptor)


@call
def dup(case: Case, descriptor: int) -> Descriptor:
    return Descriptor(os.dup(descriptor))


@call
def read(case: Case, descriptor: int, length: int) -> bytes:
    return os.read(descriptor, length)


@call
def pread(case: Case, descriptor: int, length: int, offset: int) -> bytes:
    return os.pread(descriptor, length, offset)


@call
def write(case: Case, descriptor: int, data: bytes) -> int:
    return os.write(descriptor, data)


@call
def writev(case: Case, descriptor: int, one: bytes, other: bytes) -> int:
    return os.writev(descriptor, [one, other])


@call
def readv(case: Case, descriptor: int, first: int, second: int) -> list[bytes]:
    buffers = [bytearray(first), bytearray(second)]
    got = os.readv(descriptor, buffers)
    return [bytes(buffers[0])[:got], bytes(buffers[1])[: max(0, got - first)]]


@call
def pwrite(case: Case, descriptor: int, data: bytes, offset: int) -> int:
    return libc.pwrite(descriptor, data, offset)


@call
def write_from_nowhere(case: Case, descriptor: int, length: int) -> int:
    return libc.write_from_nowhere(descriptor, length)


@call
def lseek(case: Case, descriptor: int, offset: int, whence: int = os.SEEK_SET) -> int:
    return libc.lseek(descriptor, offset, whence)


@call
def truncate(case: Case, path: bytes, length: int) -> None:
    os.truncate(path, length)


@call
def ftruncate(case: Case, descriptor: int, length: int) -> None:
    os.ftruncate(descriptor, length)


@call
def fsync(case: Case, descriptor: int) -> None:
    os.fsync(descriptor)


@call
def fdatasync(case: Case, descriptor: int) -> None:
    os.fdatasync(descriptor)


@call
def content(case: Case, path: bytes) -> bytes:
    """All bytes of a (small) file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)


@call
def put(case: Case, path: bytes, data: bytes) -> int:
    """Write into an existing file from its start."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


@call
def append(case: Case, path: bytes, data: bytes) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


@call
def zeros(case: Case, path: bytes, offset: int, length: int) -> bool:
    """Whether bytes [offset, offset + length) are all there and all zero."""
    with open(path, "rb") as stream:
        stream.seek(offset)
        return stream.read(length) == bytes(length)


@call
def pattern(case: Case, path: bytes, length: int) -> None:
    """A new file of `length` bytes that are all different from each other's neighbours."""
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(-(-length // 32)))[:length]
    with open(path, "xb") as stream:
        stream.write(data)


@call
def has_pattern(case: Case, path: bytes, length: int) -> bool:
    """Whether the first `length` bytes are those of `pattern`."""
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(-(-length // 32)))[:length]
    with open(path, "rb") as stream:
        return stream.read(length) == data


@call
def fallocate(case: Case, descriptor: int, mode: int, offset: int, length: int) -> None:
    libc.fallocate(descriptor, mode, offset, length)


@call
def posix_fallocate(case: Case, descriptor: int, offset: int, length: int) -> None:
    os.posix_fallocate(descriptor, offset, length)


@call
def copy_file_range(case: Case, source: int, target: int, length: int) -> int:
    return os.copy_file_range(source, target, length)


@call
def sendfile(case: Case, target: int, source: int, length: int) -> int:
    return os.sendfile(target, source, 0, length)


@call
def ioctl(case: Case, descriptor: int, request: int) -> int:
    buffer = bytearray(64)
    fcntl.ioctl(descriptor, request, buffer)
    return int.from_bytes(buffer[:4], "little")


@call
def clone(case: Case, target: int, source: int) -> int:
    """ioctl(FICLONE)."""
    return int(fcntl.ioctl(target, 0x40049409, source))


@call
def getfl(case: Case, descriptor: int, flag: int) -> bool:
    """Whether fcntl(F_GETFL) shows a flag."""
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & flag)


@call
def setfl(case: Case, descriptor: int, flags: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


@call
def fadvise(case: Case, descriptor: int, advice: int) -> None:
    os.posix_fadvise(descriptor, 0, 0, advice)


# --- O_DIRECT: memory and offsets in whole blocks ---
@call
def direct_write(case: Case, descriptor: int, letter: bytes, length: int, offset: int) -> int:
    with mmap.mmap(-1, length) as memory:
        memory.write(letter * length)
        return os.pwritev(descriptor, [memory], offset)


@call
def direct_read(case: Case, descriptor: int, length: int, offset: int) -> bytes:
    """The different bytes that were read, in order."""
    with mmap.mmap(-1, max(length, 1)) as memory:
        got = os.preadv(descriptor, [memory], offset)
        return b"".join(bytes([value]) for value in sorted(set(memory[:got])))


# --- mmap ---
@call
def mmap_(case: Case, descriptor: int, length: int, protection: int, flags: int, offset: int = 0) -> int:
    """An address; unmapped when the row ends."""
    address = libc.map_memory(length, protection, flags, descriptor, offset)
    case.cleanups.append(lambda: libc.unmap_memory(address, length))
    return address


@call
def poke(case: Case, address: int, offset: int, data: bytes) -> None:
    ctypes.memmove(address + offset, data, len(data))


@call
def peek(case: Case, address: int, offset: int, length: int) -> bytes:
    return ctypes.string_at(address + offset, length)


@call
def msync(case: Case, address: int, length: int, flags: int) -> None:
    libc.sync_memory(address, length, flags)


@call
def bus_error(case: Case, address: int, offset: int) -> bool:
    """Whether reading there ends a process with SIGBUS."""
    pid = os.fork()
    if pid == 0:
        ctypes.string_at(address + offset, 1)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(pid, 0)[1]) == 7


# --- locks ---
@call
def flock(case: Case, descriptor: int, operation: int) -> None:
    fcntl.flock(descriptor, operation | fcntl.LOCK_NB)


@call
def lock(case: Case, path: bytes, kind: int, start: int = 0, length: int = 0) -> None:
    """fcntl(F_SETLK) through a descriptor that stays open until the process or the row ends."""
    descriptor = os.open(path, os.O_RDWR)
    case.descriptors.append(descriptor)
    setlk(case, descriptor, kind, start, length)


@call
def setlk(case: Case, descriptor: int, kind: int, start: int = 0, length: int = 0) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETLK, struct.pack(_LOCK, kind, os.SEEK_SET, start, length, 0))


@call
def setlk_ofd(case: Case, descriptor: int, kind: int, start: int = 0, length: int = 0) -> None:
    """Open file description locks."""
    fcntl.fcntl(descriptor, 37, struct.pack(_LOCK, kind, os.SEEK_SET, start, length, 0))


@call
def getlk(case: Case, descriptor: int, kind: int, start: int = 0, length: int = 0) -> str:
    """The conflicting lock: `unlocked`, or its type, start and length."""
    wanted = struct.pack(_LOCK, kind, os.SEEK_SET, start, length, 0)
    found = struct.unpack(_LOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted))
    if found[0] == fcntl.F_UNLCK:
        return "unlocked"
    return f"{'write' if found[0] == fcntl.F_WRLCK else 'read'},{found[2]},{found[3]}"


@call
def setlease(case: Case, descriptor: int, kind: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, kind)


# --- execution ---
@call
def script(case: Case, path: bytes, mode: int) -> None:
    """A copy of true(1), which can be executed if the mode lets it."""
    with open("/bin/true", "rb") as source, open(path, "xb") as target:
        target.write(source.read())
    os.chmod(path, mode)


@call
def execute(case: Case, path: bytes) -> int:
    """execve(2) in a child process; the exit code."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(path, [path])
        except OSError as error:
            os.write(writing, b"%d" % (error.errno or 0))
        os._exit(127)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        failed = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if failed:
        raise OSError(int(failed), os.strerror(int(failed)))
    return code


@call
def program(case: Case, path: bytes) -> None:
    """A copy of sleep(1) that runs until the row ends."""
    with open("/bin/sleep", "rb") as source, open(path, "xb") as target:
        target.write(source.read())
    os.chmod(path, 0o755)
    running = subprocess.Popen([b"sleep", b"600"], executable=b"./" + path)

    def end() -> None:
        running.kill()
        running.wait()

    case.cleanups.append(end)


@call
def fifo_pair(case: Case, path: bytes) -> bytes:
    """Send bytes through a fifo within this process; what came out."""
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    try:
        os.write(writer, b"through")
        return os.read(reader, 20)
    finally:
        os.close(reader)
        os.close(writer)


@call
def connect(case: Case, path: bytes) -> None:
    """Connect to a socket without a listener."""
    with socket.socket(socket.AF_UNIX) as unix:
        unix.connect(path)
