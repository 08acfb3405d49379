"""Fragmented files that the workload finds ready to delete.

Writing a fragmented file costs far more than cleaning it up. If the workload deleted only what it
has just written, its own writing would hide the cleanup; so it also deletes files that were there
before, as people do. They are written in turns, block after block and past the page cache, so that
neighbours on the disk belong to different files, and with holes, so that no filesystem can join
the blocks of one file into one extent.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 4096
VICTIM_EXTENTS: Final = 32
IN_TURNS: Final = 16
"""Files written together, and to a directory."""


def victim_path(root: str, index: int) -> str:
    """The path of victim `index` below `root`."""
    return f"{root}/victims/{index // IN_TURNS:04d}/{index % IN_TURNS:02d}"


def make_victims(root: Path, count: int) -> None:
    """Make `count` victims in `root`, where there are none yet."""
    (root / "victims").mkdir()
    with mmap.mmap(-1, BLOCK_BYTES) as block:  # aligned, as O_DIRECT wants it
        block.write(bytes(range(256)) * (BLOCK_BYTES // 256))
        for first in range(0, count, IN_TURNS):
            (root / "victims" / f"{first // IN_TURNS:04d}").mkdir()
            together = range(first, min(first + IN_TURNS, count))
            files = [_create(victim_path(str(root), index)) for index in together]
            for extent in range(VICTIM_EXTENTS):
                for descriptor in files:
                    os.pwrite(descriptor, block, 2 * extent * BLOCK_BYTES)
            for descriptor in files:
                os.close(descriptor)


def _create(path: str) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        return os.open(path, flags | os.O_DIRECT, 0o644)
    except OSError:
        # Some filesystems make the file and then refuse; tmpfs refuses outright.
        Path(path).unlink(missing_ok=True)
        return os.open(path, flags, 0o644)
