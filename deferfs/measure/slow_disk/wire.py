"""The FUSE protocol of a filesystem with one file, as bytes in and bytes out: <linux/fuse.h>, version 7.31.

The loop driver needs INIT, LOOKUP, OPEN, READ, WRITE and FSYNC; the kernel adds a few around them. All others are
answered with ENOSYS, after which the kernel no longer sends most of them.
"""

from __future__ import annotations

import errno
import stat
import struct
from typing import Final, Literal, NamedTuple

FILE_NAME: Final = b"disk"
REQUEST_BYTES_MAX: Final = 1 << 20
"""Data of one READ or WRITE. The kernel's limit is 256 pages (sysctl fs.fuse.max_pages_limit)."""
BUFFER_BYTES: Final = REQUEST_BYTES_MAX + 4096
"""Minimum size of a buffer for read(2) from /dev/fuse: the largest WRITE with its headers."""

_ROOT: Final = 1
_FILE: Final = 2
_MAJOR: Final = 7
_MINOR: Final = 31
_PAGE_BYTES: Final = 4096
_VALID_SECONDS: Final = 1 << 30
"""Names and attributes never change."""

LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
SETATTR: Final = 4
OPEN: Final = 14
READ: Final = 15
WRITE: Final = 16
STATFS: Final = 17
RELEASE: Final = 18
FSYNC: Final = 20
FLUSH: Final = 25
INIT: Final = 26
DESTROY: Final = 38
BATCH_FORGET: Final = 42

FUSE_ASYNC_READ: Final = 1 << 0
FUSE_BIG_WRITES: Final = 1 << 5
FUSE_ASYNC_DIO: Final = 1 << 15
FUSE_MAX_PAGES: Final = 1 << 22
_WANTED: Final = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES
FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6
_FATTR_SIZE: Final = 1 << 3

IN_HEADER: Final = struct.Struct("=IIQQIIIHH")
"""struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding."""
OUT_HEADER: Final = struct.Struct("=IiQ")
"""struct fuse_out_header: len, error, unique."""
TRANSFER_IN: Final = struct.Struct("=QQIIQII")
"""struct fuse_read_in and fuse_write_in: fh, offset, size, read_flags or write_flags, lock_owner, flags, padding."""
INIT_IN: Final = struct.Struct("=IIII")
"""The head of struct fuse_init_in: major, minor, max_readahead, flags."""
INIT_OUT: Final = struct.Struct("=IIIIHHIIHH32x")
"""struct fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold, max_write,
time_gran, max_pages, map_alignment."""
ATTR: Final = struct.Struct("=QQQQQQIIIIIIIIII")
"""struct fuse_attr: ino, size, blocks, times and their nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags."""
ENTRY_HEAD: Final = struct.Struct("=QQQQII")
"""struct fuse_entry_out before attr: nodeid, generation, entry_valid, attr_valid, and their nanoseconds."""
ATTR_HEAD: Final = struct.Struct("=QII")
"""struct fuse_attr_out before attr."""
OPEN_OUT: Final = struct.Struct("=QII")
"""struct fuse_open_out: fh, open_flags, backing_id."""
WRITE_OUT: Final = struct.Struct("=II")
STATFS_OUT: Final = struct.Struct("=QQQQQIII28x")
"""struct fuse_kstatfs: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize."""
_SETATTR_VALID: Final = struct.Struct("=I")

Kind = Literal["read", "write", "flush"]


class ProtocolError(Exception):
    """The bytes are not a valid request and cannot be answered."""


class Transfer(NamedTuple):
    """A request for the disk. `data`: the data of a write, else empty; valid as long as its buffer."""

    kind: Kind
    unique: int
    offset: int
    length: int
    data: memoryview


_NO_DATA: Final = memoryview(b"")


def reply(unique: int, body: bytes = b"", *, data_bytes: int = 0) -> bytes:
    """An answer; `data_bytes` of data follow it in the same write(2)."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(body) + data_bytes, 0, unique) + body


def refusal(unique: int, number: int) -> bytes:
    """An answer that is an errno."""
    return OUT_HEADER.pack(OUT_HEADER.size, -number, unique)


def written(unique: int, length: int) -> bytes:
    """The answer to a WRITE."""
    return reply(unique, WRITE_OUT.pack(length, 0))


class OneFile:
    """The filesystem: a root directory that contains `disk`, of `size` bytes.

    `depth`: maximum of unanswered READs and WRITEs; FSYNCs are not counted.
    """

    def __init__(self, size: int, depth: int) -> None:
        self._size = size
        self._depth = depth

    def receive(self, message: memoryview) -> Transfer | bytes | None:
        """Handle the result of one read(2) of /dev/fuse: a request for the disk, or the answer to any other; None when
        no answer is expected. Raises `ProtocolError`."""
        if len(message) < IN_HEADER.size:
            raise ProtocolError(f"a request of {len(message)} bytes")
        length, opcode, unique, node, *_ = IN_HEADER.unpack_from(message)
        if length != len(message):
            raise ProtocolError(f"a request that says it has {length} bytes has {len(message)}")
        body = message[IN_HEADER.size :]
        if opcode in (READ, WRITE):
            return self._transfer("read" if opcode == READ else "write", unique, body)
        if opcode == FSYNC:
            return Transfer("flush", unique, 0, 0, _NO_DATA)
        if opcode in (FORGET, BATCH_FORGET):
            return None
        return self._answer(opcode, unique, node, body)

    def _transfer(self, kind: Kind, unique: int, body: memoryview) -> Transfer | bytes:
        if len(body) < TRANSFER_IN.size:
            return refusal(unique, errno.EINVAL)
        _, offset, length, *_ = TRANSFER_IN.unpack_from(body)
        if length > REQUEST_BYTES_MAX:
            return refusal(unique, errno.EINVAL)
        if kind == "read":
            return Transfer(kind, unique, offset, max(0, min(length, self._size - offset)), _NO_DATA)
        data = body[TRANSFER_IN.size :]
        if len(data) != length:
            return refusal(unique, errno.EINVAL)
        if offset + length > self._size:
            return refusal(unique, errno.ENOSPC)
        return Transfer(kind, unique, offset, length, data)

    def _answer(self, opcode: int, unique: int, node: int, body: memoryview) -> bytes:
        if opcode == INIT:
            return self._init(unique, body)
        if opcode == LOOKUP:
            return self._lookup(unique, node, bytes(body))
        if opcode in (GETATTR, SETATTR):
            if opcode == SETATTR and (
                len(body) < _SETATTR_VALID.size or _SETATTR_VALID.unpack_from(body)[0] & _FATTR_SIZE
            ):
                return refusal(unique, errno.EPERM)
            return reply(unique, ATTR_HEAD.pack(_VALID_SECONDS, 0, 0) + self._attributes(node))
        if opcode == OPEN:
            if node != _FILE:
                return refusal(unique, errno.EISDIR)
            return reply(unique, OPEN_OUT.pack(_FILE, FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES, 0))
        if opcode == STATFS:
            blocks = self._size // _PAGE_BYTES
            return reply(unique, STATFS_OUT.pack(blocks, 0, 0, 1, 0, _PAGE_BYTES, 255, _PAGE_BYTES))
        if opcode in (RELEASE, FLUSH, DESTROY):
            return reply(unique)
        return refusal(unique, errno.ENOSYS)

    def _init(self, unique: int, body: memoryview) -> bytes:
        if len(body) < INIT_IN.size:
            return refusal(unique, errno.EPROTO)
        major, minor, readahead, flags = INIT_IN.unpack_from(body)
        if major != _MAJOR or minor < _MINOR:
            return refusal(unique, errno.EPROTO)
        pages = REQUEST_BYTES_MAX // _PAGE_BYTES
        return reply(
            unique,
            INIT_OUT.pack(
                _MAJOR,
                _MINOR,
                readahead,
                flags & _WANTED,
                self._depth,
                self._depth,
                REQUEST_BYTES_MAX,
                1,
                pages,
                0,
            ),
        )

    def _lookup(self, unique: int, node: int, name: bytes) -> bytes:
        if node != _ROOT or name != FILE_NAME + b"\0":
            return refusal(unique, errno.ENOENT)
        head = ENTRY_HEAD.pack(_FILE, 0, _VALID_SECONDS, _VALID_SECONDS, 0, 0)
        return reply(unique, head + self._attributes(_FILE))

    def _attributes(self, node: int) -> bytes:
        is_file = node == _FILE
        size = self._size if is_file else 0
        mode = stat.S_IFREG | 0o600 if is_file else stat.S_IFDIR | 0o700
        return ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, _PAGE_BYTES, 0)
