"""Deleted files that wait for inodegc."""

from __future__ import annotations

from pathlib import Path

from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch


def make_backlog(scratch: Scratch, mount: Path, count: int, size: int = 0) -> None:
    """Delete so many more files, which are not cleaned up before inodegc is started again."""
    folder = mount / "backlog"
    folder.mkdir()
    scratch.control("gc=stop")
    before = scratch.statistics().gc.queued
    for number in range(count):
        path = folder / str(number)
        path.write_bytes(bytes(size))
        path.unlink()
    wait_until(lambda: scratch.statistics().gc.queued >= before + count, "the kernel to forget them")
