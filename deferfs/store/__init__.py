"""Block cache, transactions, journal, recovery, free space and the structures kept in blocks. Sans-IO.

The names exported here are for other programs: making a filesystem, and what a driver needs to run plans and jobs and
to satisfy Needs. See `docs/volume-library.md`.
"""

from __future__ import annotations

from typing import Final

from deferfs.store import plan
from deferfs.store.io import Discard, Flush, Job, Read, Request, Write, run_job
from deferfs.store.memory import Memory
from deferfs.store.mkfs import Geometry, make_filesystem, plan_geometry
from deferfs.store.needs import (
    Need,
    NeedBlocks,
    NeedData,
    NeedFreeSpace,
    NeedLogSpace,
    NeedMemory,
    NeedThaw,
    NeedWriteBack,
)
from deferfs.store.plan import Plan
from deferfs.store.recovery import read_superblock
from deferfs.store.store import Store, close_store, open_store

COMPILED: Final = not plan.__file__.endswith(".py")
"""Whether the core runs compiled by mypyc, or as plain Python."""

__all__ = [
    "COMPILED",
    "Discard",
    "Flush",
    "Geometry",
    "Job",
    "Memory",
    "Need",
    "NeedBlocks",
    "NeedData",
    "NeedFreeSpace",
    "NeedLogSpace",
    "NeedMemory",
    "NeedThaw",
    "NeedWriteBack",
    "Plan",
    "Read",
    "Request",
    "Store",
    "Write",
    "close_store",
    "make_filesystem",
    "open_store",
    "plan_geometry",
    "read_superblock",
    "run_job",
]
