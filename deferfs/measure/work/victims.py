"""Fragmented files for the workload to delete.

Writing a fragmented file costs far more than cleaning it up. If the workload deleted only files it has just written,
its own writes would hide the cleanup; so it also deletes older files, which is realistic. They are written with holes,
so that no filesystem can merge the blocks of one file into one extent. The blocks are zeros, which a copy of the image
need not copy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

BLOCK: Final = bytes(4096)
VICTIM_EXTENTS: Final = 24
FILES_PER_DIRECTORY: Final = 16


def victim_path(root: str, index: int) -> str:
    """The path of victim `index` below `root`."""
    return f"{root}/victims/{index // FILES_PER_DIRECTORY:04d}/{index % FILES_PER_DIRECTORY:02d}"


def make_victims(root: Path, count: int) -> None:
    """Make `count` victims in `root`, where there are none yet."""
    (root / "victims").mkdir()
    for index in range(count):
        if index % FILES_PER_DIRECTORY == 0:
            (root / "victims" / f"{index // FILES_PER_DIRECTORY:04d}").mkdir()
        path = victim_path(str(root), index)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        for extent in range(VICTIM_EXTENTS):
            os.pwrite(descriptor, BLOCK, 2 * extent * len(BLOCK))
        os.close(descriptor)


def name_victims_twice(root: Path, count: int) -> None:
    """Give each victim a second name, so that deleting it leaves nothing to clean up."""
    (root / "second-names-of-victims").mkdir()
    for index in range(count):
        os.link(victim_path(str(root), index), f"{root}/second-names-of-victims/{index}")
