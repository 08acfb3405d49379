"""Files of many extents: a block, a hole, a block. These are expensive to evict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BLOCK: Final = bytes(4096)
"""Zeros: no filesystem here treats them specially, and a copy of the image stays small."""
STRIDE_BYTES: Final = 2 * len(BLOCK)
PER_DIRECTORY: Final = 100


def scattered_paths(root: Path | str, files: int) -> Iterator[str]:
    """The paths of the files below `root`, in the order in which they are made."""
    return (f"{root}/{number // PER_DIRECTORY:03d}/{number:05d}" for number in range(files))


def make_scattered(root: Path | str, files: int, extents: int, every: int = 1) -> None:
    """Make `files` files below `root`; each one in `every` has `extents` extents of 4 KiB, the others have one."""
    for number, path in enumerate(scattered_paths(root, files)):
        if number % PER_DIRECTORY == 0:
            os.makedirs(os.path.dirname(path))
        make_file(path, min(1, extents) if number % every else extents)


def make_file(path: str, extents: int) -> None:
    """Make one file of `extents` extents."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        for extent in range(extents):
            os.pwrite(descriptor, BLOCK, extent * STRIDE_BYTES)
    finally:
        os.close(descriptor)


def data_bytes(files: int, extents: int) -> int:
    """Bytes of data in `files` files of `extents` extents each."""
    return files * extents * len(BLOCK)
