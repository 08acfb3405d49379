"""Several processes do random things to the same few names: nothing hangs, and memory and disk agree afterwards."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.mounted.conftest import MakeScratch
from tests.mounted.expect import fails_with
from tests.mounted.scratch import Scratch, drop_kernel_caches, run
from tests.mounted.stressing import finish, start
from tests.mounted.trees import assert_same, snapshot

pytestmark = pytest.mark.mounted


def assert_all_is_kept(scratch: Scratch, fresh: tuple[int, ...], *options: str) -> None:
    """What the mount shows is what the disk holds; and when it is deleted, the space is back."""
    before = snapshot(scratch.mountpoint)
    scratch.remount(*options)
    assert_same(before, snapshot(scratch.mountpoint))
    run("rm", "-rf", *scratch.mountpoint.iterdir())
    scratch.drain()
    assert scratch.space() == fresh
    scratch.unmount_and_check()


@pytest.mark.parametrize("cache", ["on", "off"])
def test_stress(scratch: Scratch, cache: str) -> None:
    options = f"writeback_cache={cache}"
    scratch.mount(options)
    fresh = scratch.space()
    assert finish(start(scratch, 3, 400)) == 0
    if scratch.evict == "deferred":
        assert scratch.statistics().reclaim_context.violations == {}
        assert scratch.statistics().reclaim_context.lock_order_cycles == 0
    assert_all_is_kept(scratch, fresh, options)


@pytest.mark.each_policy
def test_stress_in_narrow_space(make_scratch: MakeScratch, evict: str) -> None:
    """Small blocks, the smallest log, the least memory, a commit all the time: everything waits for everything."""
    scratch = make_scratch(evict=evict, size="64M", format_options=["-b", "1024", "--journal-size", "256K"])
    options = ("memory=2M", "commit=0.1", "gc_workers=8")
    scratch.mount(*options)
    fresh = scratch.space()
    assert finish(start(scratch, 3, 300, seed=100)) == 0
    statistics = scratch.statistics()
    assert statistics.journal.checkpoints_total > 0
    if evict == "deferred":
        assert statistics.reclaim_context.violations == {}
        assert statistics.reclaim_context.lock_order_cycles == 0
    assert_all_is_kept(scratch, fresh, *options)


@pytest.mark.machine
def test_switching_under_load(plain: Scratch) -> None:
    """The policy, the workers, the memory and the caches change while files come and go."""
    plain.mount("commit=0.5")
    fresh = plain.space()
    turns = 0
    while turns < 4:  # a turn may last as long as all the work
        processes = start(plain, 2, 500, seed=200 + 10 * turns)
        while any(process.poll() is None for process in processes):
            plain.control(f"evict={('inline', 'deferred')[turns % 2]}", f"gc_workers={1 + turns % 3}")
            plain.control(f"memory={4 + turns % 2 * 100}M", "drop_caches=1")
            drop_kernel_caches()
            turns += 1
        assert finish(processes) == 0
    assert_all_is_kept(plain, fresh)


LITTLE_BYTES = 120 << 10
"""Less than the first request of a long write of the program, so that each of these is refused."""


def leave_little_space(scratch: Scratch, ballast: Path) -> None:
    """Nothing is left to chance: fill the disk, then give back a little."""
    with ballast.open("wb", buffering=0) as file:
        with fails_with(errno.ENOSPC):
            while file.tell() < os.path.getsize(scratch.image):
                file.write(os.urandom(1 << 12))
        file.truncate(file.tell() - LITTLE_BYTES)
    scratch.drain()


@pytest.mark.each_policy
def test_stress_on_a_disk_that_is_often_full(make_scratch: MakeScratch, evict: str) -> None:
    """Some writes fail, with ENOSPC and nothing else; the image stays sound, and in the end all space is back."""
    scratch = make_scratch(evict=evict, size="8M", format_options=["--journal-size", "1M"])
    mount = scratch.mount("writeback_cache=off")
    fresh = scratch.space()
    leave_little_space(scratch, mount / "ballast")
    assert finish(start(scratch, 2, 400, seed=300)) > 0
    assert_all_is_kept(scratch, fresh, "writeback_cache=off")
