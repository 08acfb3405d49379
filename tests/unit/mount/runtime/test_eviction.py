"""Where inodes go, with a cleaner and a trimmer that only note what they are asked for."""

from __future__ import annotations

import pytest

from deferfs.mount.runtime.eviction import Eviction
from deferfs.mount.runtime.grants import CircularWaitError
from deferfs.mount.runtime.instruments import Instruments
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.volume.driver import Driver
from tests.unit.volumes import fresh_driver, make, record_of, unlink


class Cleaner:
    """Runs no inactivation."""

    def __init__(self, *, stopped: bool = False) -> None:
        self.stopped = stopped
        self.asked: list[int] = []

    async def inactivate_or_queue(self, inode: InCoreInode) -> None:
        self.asked.append(inode.ino)


class CircularCleaner:
    """Begins inactivations, which find that they would wait for themselves."""

    stopped = False

    def __init__(self, driver: Driver) -> None:
        self._inodes = driver.volume.inodes

    async def inactivate_or_queue(self, inode: InCoreInode) -> None:
        assert self._inodes.begin(inode)
        raise CircularWaitError


class Trimmer:
    """Frees nothing."""

    def __init__(self) -> None:
        self.queued: list[int] = []
        self.trimmed: list[int] = []

    def queue(self, ino: int, generation: int) -> None:
        self.queued.append(ino)

    async def trim(self, ino: int, generation: int) -> None:
        self.trimmed.append(ino)


def deleted(driver: Driver) -> list[InCoreInode]:
    """Inodes of deleted files that the kernel has just forgotten."""
    volume = driver.volume
    found = []
    for number in range(3):
        ino = make(driver, b"%d" % number)
        volume.lookup_count(record_of(volume, ino))
        unlink(driver, b"%d" % number)
        inode = volume.inodes.forget(ino, 1)
        assert inode is not None
        found.append(inode)
    return found


async def test_deferred_queues_and_waits_for_nothing() -> None:
    driver, cleaner = fresh_driver(evict="deferred"), Cleaner()
    eviction = Eviction(driver.volume, Instruments(strict=True), cleaner, Trimmer())
    assert not eviction.waits
    await eviction.place(deleted(driver))
    assert driver.volume.gc.queued == 3
    assert cleaner.asked == []


async def test_inline_waits_for_each() -> None:
    driver, cleaner, instruments = fresh_driver(evict="inline"), Cleaner(), Instruments()
    eviction = Eviction(driver.volume, instruments, cleaner, Trimmer())
    assert eviction.waits
    inodes = deleted(driver)
    await eviction.place(inodes)
    assert cleaner.asked == [inode.ino for inode in inodes]
    assert instruments.waits.by_name["gc"].count == 3
    assert driver.volume.gc.queued == 0


@pytest.mark.parametrize("circular", [False, True], ids=["stopped", "circular"])
async def test_inline_queues_what_cannot_be_cleaned_up_now(circular: bool) -> None:
    driver = fresh_driver(evict="inline")
    cleaner = CircularCleaner(driver) if circular else Cleaner(stopped=True)
    eviction = Eviction(driver.volume, Instruments(), cleaner, Trimmer())
    inodes = deleted(driver)
    await eviction.place(inodes)
    assert driver.volume.gc.queued == 3
    assert [inode.state for inode in inodes] == [State.QUEUED] * 3


@pytest.mark.parametrize(("evict", "stopped"), [("deferred", False), ("inline", True), ("inline", False)])
async def test_blocks_past_the_end_go_with_the_last_handle(evict: str, stopped: bool) -> None:
    driver, trimmer = fresh_driver(evict=evict), Trimmer()
    eviction = Eviction(driver.volume, Instruments(), Cleaner(stopped=stopped), trimmer)
    ino = make(driver, b"growing")
    handles = [driver.volume.hold(record_of(driver.volume, ino)) for _ in range(2)]
    for offset in range(0, 600_000, 20_000):
        driver.write(ino, offset, b"x" * 20_000)
    await eviction.release(handles[0])
    assert trimmer.queued == trimmer.trimmed == []
    await eviction.release(handles[1])
    waits = evict == "inline" and not stopped
    assert (trimmer.queued, trimmer.trimmed) == (([], [ino]) if waits else ([ino], []))
