"""The sample image: one of everything.

Each data form, trees of two levels, directories of both kinds, attributes inline and in blocks, hard links, orphans in
two blocks of the table, a scattered chunk, a second inode group, two free-space bitmaps.
"""

from __future__ import annotations

import functools
import stat

from deferfs.device import MemoryDevice
from deferfs.ondisk.inode import FLAG_PREALLOCATED, ROOT_INO
from deferfs.ondisk.node import UNWRITTEN, ExtentNode
from deferfs.ondisk.xattr import pack_xattrs
from tests.unit.check.builder import BLOCK_SIZE, Builder
from tests.unit.check.image import Image

SMALL, SPARSE, EXTENTS, TREE, PREALLOCATED = 8, 9, 10, 11, 12
SYMLINK, LONG_SYMLINK, FIFO, DEVICE, SOCKET = 13, 14, 15, 16, 17
DIRECTORY, SUBDIRECTORY, BIG, ATTRIBUTES = 18, 19, 20, 21
ORPHAN, ORPHAN_DIRECTORY, FILES = 22, 23, 24
FIRST_IN_CHUNK_1 = 64
FAR = 7936 + 5
BIG_ENTRIES = 60


def _build() -> Image:
    b = Builder()
    b.add_scattered_chunk(1)
    b.add_group(1)
    small = b.file(SMALL, size=5, xattrs=pack_xattrs({b"user.colour": b"red", b"user.a": b""}))
    small.set_inline(b"hello")
    b.file(SPARSE, size=100_000).set_inline(b"a hole follows")
    b.map(
        b.file(EXTENTS, 2, size=12 * BLOCK_SIZE - 100),
        [b.extent(0, 3), b.extent(5, 1), b.extent(10, 2, UNWRITTEN)],
    )
    scattered = b.file(TREE, size=80 * BLOCK_SIZE)
    extents = [b.extent(2 * i, 1) for i in range(40)]
    scattered.blocks = len(extents)
    b.tree(ExtentNode, scattered, extents, 20)
    preallocated = [b.extent(0, 1), b.extent(1, 15, UNWRITTEN)]
    b.map(b.file(PREALLOCATED, size=100, flags=FLAG_PREALLOCATED), preallocated)
    b.inode(SYMLINK, stat.S_IFLNK | 0o777, size=9).set_inline(b"../target")
    b.map(b.inode(LONG_SYMLINK, stat.S_IFLNK | 0o777, size=1500), [b.extent(0, 2)])
    b.inode(FIFO, stat.S_IFIFO | 0o600)
    b.inode(DEVICE, stat.S_IFCHR | 0o600, rdev=0x105)
    b.inode(SOCKET, stat.S_IFSOCK | 0o600)
    b.xattrs(b.file(ATTRIBUTES), {b"user.%d" % i: bytes([i]) * 900 for i in range(3)})
    b.file(FAR)
    b.map(b.file(ORPHAN, 0, size=3000), [b.extent(0, 3)])
    for index in range(BIG_ENTRIES):
        b.file(FIRST_IN_CHUNK_1 + index)
    _build_directories(b)
    b.orphans({0: ORPHAN, 33: ORPHAN_DIRECTORY})
    return b.finish()


def _build_directories(b: Builder) -> None:
    b.directory(SUBDIRECTORY, DIRECTORY, {}, flags=0)
    b.directory(DIRECTORY, ROOT_INO, {"sub": SUBDIRECTORY, "hard link": EXTENTS})
    names = {f"entry {i}": FIRST_IN_CHUNK_1 + i for i in range(BIG_ENTRIES)}
    b.directory(BIG, ROOT_INO, names, tree=True)
    files = {
        "small": SMALL, "sparse": SPARSE, "extents": EXTENTS, "tree": TREE, "fifo": FIFO, "far":
        FAR, "preallocated": PREALLOCATED, "symlink": SYMLINK, "long symlink": LONG_SYMLINK,
        "device": DEVICE, "socket": SOCKET, "attributes": ATTRIBUTES,
    }  # fmt: skip
    b.directory(FILES, ROOT_INO, files, tree=True, flags=0)
    b.directory(ROOT_INO, ROOT_INO, {"dir": DIRECTORY, "big": BIG, "files": FILES})
    b.directory(ORPHAN_DIRECTORY, 0, {}, nlink=0, flags=0)


@functools.cache
def _sample_bytes() -> bytes:
    return _build().device.snapshot()


def sample() -> Image:
    """A fresh copy of the sample image."""
    return Image(MemoryDevice.from_bytes(_sample_bytes()))
