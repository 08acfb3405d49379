"""Calls whose results are small enough to compare step by step, and the whole tree: for the differential tests."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat

from tests.mounted.posix.machine import Case, Descriptor, call

_WHOLE_BYTES_MAX = 64 << 20


@call
def fill(case: Case, descriptor: int, letter: bytes, length: int, offset: int) -> int:
    """pwrite(2) of one byte many times."""
    return os.pwrite(descriptor, letter * length, offset)


@call
def digest(case: Case, descriptor: int, length: int, offset: int) -> str:
    """pread(2), as length and hash."""
    return _summary(os.pread(descriptor, length, offset))


def _summary(data: bytes) -> str:
    return f"{len(data)}:{hashlib.blake2b(data, digest_size=6).hexdigest()}"


@call
def map_fill(case: Case, descriptor: int, letter: bytes, length: int, offset: int) -> int:
    """The same through a shared mapping, as far as the file goes."""
    end = min(offset + length, os.fstat(descriptor).st_size)
    if end <= offset:
        return 0
    with mmap.mmap(descriptor, end) as memory:
        memory[offset:end] = letter * (end - offset)
    return end - offset


@call
def map_digest(case: Case, descriptor: int, length: int, offset: int) -> str:
    end = min(offset + length, os.fstat(descriptor).st_size)
    if end <= offset:
        return "0"
    with mmap.mmap(descriptor, end, prot=mmap.PROT_READ) as memory:
        return _summary(memory[offset:end])


@call
def append_fill(case: Case, path: bytes, letter: bytes, length: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        return os.write(descriptor, letter * length)
    finally:
        os.close(descriptor)


@call
def move_within(case: Case, descriptor: int, length: int, source: int, target: int) -> int:
    """copy_file_range(2) in one file."""
    return os.copy_file_range(descriptor, descriptor, length, source, target)


@call
def reopen(case: Case, path: bytes, descriptor: int) -> Descriptor:
    """Close, and open again: the kernel writes back what it had collected."""
    os.close(descriptor)
    return Descriptor(os.open(path, os.O_RDWR))


@call
def evict_pages(case: Case, descriptor: int) -> None:
    """Write back, and drop the kernel's pages: what is read next comes from the filesystem."""
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@call
def listing(case: Case) -> list[str]:
    """Everything below the row's directory: names, kinds, modes, owners, links, sizes, contents, attributes."""
    found: list[str] = []
    _list(b".", found)
    return found


def _list(path: bytes, found: list[str]) -> None:
    status = os.lstat(path)
    words = [os.fsdecode(path), f"{status.st_mode:o}", f"{status.st_uid}:{status.st_gid}", str(status.st_nlink)]
    if stat.S_ISREG(status.st_mode):
        words += [str(status.st_size), _content(path)]
    elif stat.S_ISLNK(status.st_mode):
        words.append(os.fsdecode(os.readlink(path)))
    names = sorted(os.listxattr(path, follow_symlinks=False))
    words += [f"{name}={os.getxattr(path, name, follow_symlinks=False)!r}" for name in names]
    found.append(" ".join(words))
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(path)):
            _list(path + b"/" + name, found)


def _content(path: bytes) -> str:
    with open(path, "rb") as stream:
        return _summary(stream.read(_WHOLE_BYTES_MAX))
