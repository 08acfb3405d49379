"""What all passes of one check share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from deferfs.check.claims import Claims
from deferfs.check.reader import BlockReader
from deferfs.check.report import Findings
from deferfs.device.base import Device
from deferfs.ondisk.superblock import Superblock

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with (pass, done, total) from time to time."""

_PROGRESS_STEPS = 200
"""Reports of progress in one pass, about."""


def with_progress(progress: Progress | None, name: str, items: Sequence[T]) -> Iterator[T]:
    """The items one by one, with reports under `name`, at the start, at the end, and at some points between."""
    total = len(items)
    every = max(1, total // _PROGRESS_STEPS)
    for done, item in enumerate(items):
        if progress is not None and done % every == 0:
            progress(name, done, total)
        yield item
    if progress is not None:
        progress(name, total, total)


class Context:
    """One check of one image. Nothing in it writes to the device."""

    def __init__(
        self,
        device: Device,
        superblock: Superblock,
        findings: Findings,
        claims: Claims,
        progress: Progress | None = None,
    ) -> None:
        self.device = device
        self.superblock = superblock
        self.fmt = superblock.format
        self.findings = findings
        self.reader = BlockReader(device, superblock.block_size, findings)
        self.claims = claims
        self.progress = progress
        self.complete = True
        """Cleared when damage kept a structure from being checked to its end."""

    def steps(self, name: str, items: Sequence[T]) -> Iterator[T]:
        """The items one by one, with progress reports under `name`."""
        return with_progress(self.progress, name, items)
