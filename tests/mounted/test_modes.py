"""What the evict policies and the memory budget do to a mount that is used."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from deferfs.contract.requests import Set
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, drop_kernel_caches, run

pytestmark = [pytest.mark.mounted, pytest.mark.each_policy]


def churn(mount: Path, rounds: int = 3) -> None:
    """Create, write, read, rename and delete, some of it while open."""
    for number in range(rounds):
        folder = mount / f"folder{number}"
        folder.mkdir()
        for index in range(60):
            path = folder / f"file{index}"
            path.write_bytes(bytes(index * 3000))
            with path.open("rb") as file:
                if index % 3 == 0:
                    path.unlink()
                assert len(file.read()) == index * 3000
            if index % 3 == 1:
                path.rename(folder / f"file{index - 1}")
        run("rm", "-r", folder)


@pytest.mark.machine
def test_the_mode_decides_what_waits_for_cleanup(scratch: Scratch) -> None:
    """Inline, the request waits; deferred, none does: no wait for inodegc, and none at all in reclaim."""
    mount = scratch.mount()
    churn(mount)
    drop_kernel_caches()
    scratch.drain()
    statistics = scratch.statistics()
    gc, waited = statistics.gc, statistics.waits["gc"].count
    if scratch.evict == "inline":
        assert waited > 100
        assert statistics.reclaim_context.violations_total > 0
    else:
        assert waited == 0
        assert gc.queued_total >= gc.inactivated_total > 100
        assert statistics.reclaim_context.violations == {}
        assert statistics.reclaim_context.lock_order_cycles == 0
    assert statistics.inodes.quarantined == 0
    assert statistics.inodes.anomalies == {}
    scratch.unmount_and_check()


def test_the_mode_can_be_switched(plain: Scratch) -> None:
    mount = plain.mount()
    for evict, waits in (("deferred", False), ("inline", True), ("deferred", False)):
        plain.control(f"evict={evict}")
        assert plain.statistics().evict == evict
        before = plain.statistics().waits["gc"].count
        (mount / "file").write_bytes(bytes(100_000))
        (mount / "file").unlink()
        plain.drain()
        assert (plain.statistics().waits["gc"].count > before) is waits
    plain.unmount_and_check()


@pytest.mark.machine
def test_metadata_beyond_the_memory_budget_is_reclaimed_by_requests(scratch: Scratch) -> None:
    """More metadata than the budget, and no background reclaimer that could work ahead: requests reclaim by themselves,
    and all of it is still right."""
    names = [f"user.number{i}" for i in range(4)]

    def value(number: int) -> bytes:
        return bytes([number]) * 60_000

    mount = scratch.mount("memory=2M,background_reclaim=off")
    for number in range(30):
        path = mount / f"file{number}"
        path.touch()
        for name in names:
            os.setxattr(path, name, value(number))
    for _ in range(2):
        for number in range(30):
            assert all(os.getxattr(mount / f"file{number}", name) == value(number) for name in names)
        drop_kernel_caches()
    statistics = scratch.statistics()
    memory = statistics.memory
    assert memory.budget_bytes == 2 << 20
    assert memory.direct_reclaims_total > 0
    if scratch.evict == "deferred":
        assert statistics.reclaim_context.violations_total == 0
    scratch.control("background_reclaim=on")
    wait_until(lambda: scratch.statistics().memory.used_bytes <= 2 << 20, "memory to be within the budget again")
    scratch.remount("memory=2M,background_reclaim=off")
    for number in range(0, 30, 7):
        assert all(os.getxattr(mount / f"file{number}", name) == value(number) for name in names)
    scratch.unmount_and_check()


@pytest.mark.machine
def test_forgotten_inodes_are_dropped(scratch: Scratch) -> None:
    """FORGET makes inodes idle; dropping the caches leaves none but the root."""
    mount = scratch.mount()
    for number in range(200):
        (mount / f"file{number}").write_text("content")
    scratch.sync()
    with ExitStack() as files:
        for path in mount.iterdir():
            files.enter_context(path.open())  # the kernel may forget a file that is closed
        assert scratch.statistics().inodes.active >= 200

    def dropped() -> bool:
        drop_kernel_caches()
        scratch.control("drop_caches=1", "gc=flush")
        return scratch.statistics().inodes.cached <= 1

    wait_until(dropped, "all inodes to be dropped")
    assert len(os.listdir(mount)) == 200
    scratch.unmount_and_check()


@pytest.mark.machine
def test_access_times_survive_reclaim(scratch: Scratch) -> None:
    """They are kept in memory, and written when the inode is inactivated."""
    mount = scratch.mount("relatime")
    for number in range(20):
        path = mount / f"file{number}"
        path.write_text("content")
        os.utime(path, ns=(1000, 2000))
    scratch.remount("relatime")
    for number in range(10):
        assert (mount / f"file{number}").read_text() == "content"
    drop_kernel_caches()
    scratch.control("drop_caches=1", "gc=flush")
    scratch.remount("noatime")
    read = [(mount / f"file{number}").stat().st_atime_ns > 1000 for number in range(20)]
    assert read == [True] * 10 + [False] * 10
    scratch.unmount_and_check()


@pytest.mark.machine
def test_a_lookup_takes_over_what_an_inode_owes(plain: Scratch) -> None:
    """An inode that has left memory with an access time to be written is simply live again when it is wanted."""
    mount = plain.mount("gc_workers=1")
    paths = [mount / f"file{number}" for number in range(300)]
    for path in paths:
        path.write_text(path.name)

    def forgotten() -> bool:
        inodes = plain.statistics().inodes
        return not inodes.active and not inodes.forgets_waiting

    def shrink(times: int) -> None:
        for _ in range(times):
            plain.ask(Set(key="drop_caches", value="1"))

    for _ in range(3):
        drop_kernel_caches()
        for path in paths:
            os.utime(path, ns=(1, 2))
            assert path.read_text() == path.name
        drop_kernel_caches()
        wait_until(forgotten, "the kernel to forget all files")
        before = plain.statistics().gc
        shrink(1)
        after = plain.statistics().gc
        left = after.times_owed + after.times_paid_total - before.times_owed - before.times_paid_total
        assert left > 0
        shrinking = Thread(target=shrink, args=(10,))
        shrinking.start()
        for path in paths:
            path.stat()
        shrinking.join()

    seen = [path.stat().st_atime_ns for path in paths]
    plain.control("gc=flush")
    assert plain.statistics().inodes.quarantined == 0
    plain.remount()
    assert [path.stat().st_atime_ns for path in paths] == seen
    assert all(path.read_text() == path.name for path in paths)
    plain.unmount_and_check()


def test_unmount_drains_the_backlog(scratch: Scratch) -> None:
    """Hundreds of deleted files, closed just before: nothing is left to do for the next mount."""
    mount = scratch.mount()
    fresh = scratch.space()
    files = []
    for number in range(300):
        files.append((mount / f"file{number}").open("wb"))
        files[-1].write(bytes(20_000))
        files[-1].flush()
        os.unlink(files[-1].name)
    for file in files:
        file.close()
    scratch.unmount()
    counts = scratch.check()
    assert counts["orphans"] == counts["files"] == 0
    scratch.mount()
    assert scratch.space() == fresh
    scratch.unmount_and_check()
