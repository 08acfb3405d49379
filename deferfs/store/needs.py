"""Needs: what a plan may lack. Raised while nothing is held; the driver waits for it and runs the operation again."""

from __future__ import annotations

from typing import Any

from deferfs.ondisk.format import Block


class Need(Exception):
    """What an operation lacks: its driver satisfies it and runs the operation again."""


class NeedBlocks(Need):
    """Metadata blocks that are not cached: [(address, kind)]."""

    def __init__(self, blocks: list[tuple[int, type[Block]]]) -> None:
        super().__init__(blocks)
        self.blocks: list[tuple[int, type[Any]]] = blocks


class NeedData(Need):
    """Bytes of file data at a device offset, to be copied by the operation."""

    def __init__(self, offset: int, length: int) -> None:
        super().__init__(offset, length)
        self.offset = offset
        self.length = length


class NeedLogSpace(Need):
    """`credits` log blocks that the journal cannot grant now."""

    def __init__(self, credits: int) -> None:
        super().__init__(credits)
        self.credits = credits


class NeedMemory(Need):
    """The memory budget is exceeded by this many bytes: reclaim first."""

    def __init__(self, bytes_over: int) -> None:
        super().__init__(bytes_over)
        self.bytes_over = bytes_over


class NeedWriteBack(Need):
    """Dirty memory exceeds its share, and the operation would add `blocks` to it: some must be written home first."""

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks)
        self.blocks = blocks


class NeedFreeSpace(Need):
    """No block is free now of the `blocks` wanted; a commit or an inactivation may free some."""

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks)
        self.blocks = blocks


class NeedThaw(Need):
    """The filesystem is frozen: nothing may change before the thaw."""
