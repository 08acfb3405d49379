"""Access times that inodes owe which have left memory: exact while mounted, after an unmount, and in both policies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.mounted import offline
from tests.mounted.conftest import MakeScratch
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, drop_kernel_caches

pytestmark = [pytest.mark.mounted, pytest.mark.machine]

FILES: Final = 2250
OLD_NS: Final = 1_500_000_000_000_000_000
AMPLE: Final = "memory=16M"
SHORT: Final = "memory=2M"
"""While the files are made and read; and then, when most of them have to leave memory."""


def read_all(scratch: Scratch, root: Path) -> None:
    """Each file or link owes an access time; the kernel is made to forget them, and memory is short then."""
    for path in paths(root):
        os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    scratch.sync()
    for path in paths(root):
        if path.is_symlink():
            path.readlink()
        else:
            path.read_bytes()
    drop_kernel_caches()
    scratch.control(SHORT)


def gone(scratch: Scratch) -> bool:
    """Whether a good part of the inodes has left memory with what it owed: others need the memory."""
    for _ in range(32):
        (scratch.mountpoint / "other").touch()
        (scratch.mountpoint / "other").unlink()
    gc = scratch.statistics().gc
    return gc.times_owed + gc.times_paid_total > FILES // 4


def times(root: Path) -> list[int]:
    return [path.lstat().st_atime_ns for path in paths(root)]


def paths(root: Path) -> Iterator[Path]:
    return (root / f"{number % 20}" / f"{number}" for number in range(FILES))


def made(scratch: Scratch, *options: str, links: bool = True) -> Path:
    """Links, which owe as files do and are read by one request, or files."""
    with offline.opened(scratch.image) as driver:
        directories = [offline.make_directory(driver, f"{number}") for number in range(20)]
        for number in range(FILES):
            parent, name = directories[number % 20], f"{number}"
            if links:
                offline.make_link(driver, name, "target", parent)
            else:
                offline.make_file(driver, name, b"x" * 3000, parent)
    return scratch.mount(AMPLE, *options)


def test_no_time_is_lost_or_rounded(make_scratch: MakeScratch, evict: str) -> None:
    scratch = make_scratch(evict=evict)
    root = made(scratch, links=False)
    read_all(scratch, root)
    if evict == "deferred":
        wait_until(lambda: gone(scratch), "inodes that owe to leave memory")
    before = times(root)
    assert min(before) > OLD_NS
    root = scratch.remount(AMPLE)
    assert times(root) == before
    scratch.unmount_and_check()


def test_access_times_owed_are_paid_without_an_unmount(make_scratch: MakeScratch) -> None:
    scratch = make_scratch()
    root = made(scratch, "commit=1")
    read_all(scratch, root)
    wait_until(lambda: gone(scratch), "inodes that owe to leave memory")
    wait_until(lambda: scratch.statistics().gc.times_paid_total > 0, "the first debts to be paid")
    scratch.control("gc=flush")
    found = scratch.statistics().gc
    assert found.times_owed == 0
    assert found.time_updates_total < found.times_paid_total / 2, "those of one block together"
    scratch.unmount_and_check()


def test_nothing_is_owed_twice_when_the_table_is_full(make_scratch: MakeScratch) -> None:
    """With inodegc stopped debts pile up until no more fit: inodes stay in memory then, and nothing is lost."""
    scratch = make_scratch()
    root = made(scratch)
    scratch.control("gc=stop")
    read_all(scratch, root)
    before = times(root)
    gc = scratch.statistics().gc
    assert gc.times_owed <= gc.times_owed_max
    assert gc.times_paid_total < FILES
    scratch.control("gc=start")
    root = scratch.remount(AMPLE)
    assert times(root) == before
    scratch.unmount_and_check()
