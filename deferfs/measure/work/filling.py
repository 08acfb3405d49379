"""A process that makes the files of a prepared filesystem.

It is killed when the preparation is broken off, so that it holds no file open that would keep the filesystem busy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure.work.processes import StopFlag, Worker

FILL_SECONDS_MAX: Final = 3600.0
"""Timeout of one filesystem: the largest of a `--full` run takes minutes."""


class _Fill:
    """The job: everything is done in `prepare`."""

    def __init__(self, name: str, fill: Callable[[], object]) -> None:
        self.name = name
        self._fill = fill

    def prepare(self) -> None:
        self._fill()

    def measure(self, stop: StopFlag) -> msgspec.Struct:
        raise AssertionError("nothing is measured here")


@contextlib.contextmanager
def filling(root: Path, fill: Callable[[Path], object]) -> Iterator[Callable[[], None]]:
    """Run `fill(root)` in a process of its own, beside the block, which gets a function that waits for its end. That
    raises WorkerError when it failed. The process has ended after the block."""
    worker = Worker(_Fill(f"filling of {root}", lambda: fill(root)), StopFlag())
    try:
        worker.join()
        yield lambda: worker.wait_ready(FILL_SECONDS_MAX)
    finally:
        worker.close()
