"""Where inodes go that nothing uses any more, and where memory and blocks past EOF come back from."""

from __future__ import annotations

import pytest

from deferfs.limits import PREALLOCATION_LIFETIME_SECONDS, TRIM_LOOK_SECONDS_MIN
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.volume.driver import Driver
from deferfs.volume.log_space import CircularWaitError
from deferfs.volume.waits import DebtsFit, Task
from tests.unit.volumes import fresh_driver, make, record_of, settle, unlink

COUNT = 50


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


def idle_inodes(driver: Driver) -> None:
    """In core, used by nothing, and everything clean."""
    for number in range(COUNT):
        record = record_of(driver.volume, make(driver, b"%d" % number))
        driver.volume.inodes.hold(record.ino, record.generation).release()
    settle(driver)


def test_deferred_queues_and_leaves_nothing_to_wait_for() -> None:
    driver = fresh_driver(evict="deferred")
    assert driver.engine.eviction.dispose(deleted(driver)) == []
    assert driver.volume.gc.queued == 3


def test_inline_waits_for_each() -> None:
    driver = fresh_driver(evict="inline")
    inodes = deleted(driver)
    waiting = driver.engine.eviction.dispose(inodes)
    assert waiting == inodes
    driver.drive(driver.engine.eviction.wait_for(waiting))
    assert [inode.state for inode in inodes] == [State.FREED] * 3
    assert driver.volume.gc.queued == 0


def test_inline_queues_while_inodegc_is_stopped() -> None:
    driver = fresh_driver(evict="inline")
    driver.drive(driver.engine.cleanup.stop())
    inodes = deleted(driver)
    assert driver.engine.eviction.dispose(inodes) == []
    assert [inode.state for inode in inodes] == [State.QUEUED] * 3


def test_inline_queues_what_would_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = fresh_driver(evict="inline")
    inodes = deleted(driver)

    def circular(inode: InCoreInode) -> Task[None]:
        yield from ()
        assert driver.volume.inodes.begin(inode)
        raise CircularWaitError

    monkeypatch.setattr(driver.engine.cleanup, "inline", circular)
    driver.dispose(inodes)
    assert [inode.state for inode in inodes] == [State.QUEUED] * 3


@pytest.mark.parametrize(("evict", "stopped"), [("deferred", False), ("inline", True), ("inline", False)])
def test_blocks_past_the_end_go_with_the_last_handle(evict: str, stopped: bool) -> None:
    driver = fresh_driver(evict=evict)
    eviction = driver.engine.eviction
    ino = make(driver, b"growing")
    handles = [driver.volume.hold(record_of(driver.volume, ino)) for _ in range(2)]
    for offset in range(0, 600_000, 20_000):
        driver.write(ino, offset, b"x" * 20_000)
    if stopped:
        driver.drive(driver.engine.cleanup.stop())
    assert eviction.release(handles[0]) is None
    assert not eviction.to_trim
    task = eviction.release(handles[1])
    waits = evict == "inline" and not stopped
    assert (task is not None, [file[0] for file in eviction.to_trim]) == (waits, [] if waits else [ino])
    driver.engine.cleanup.resume()
    if task is not None:
        driver.drive(task)
    driver.trim()
    assert eviction.trimmed_total == 1


def test_nothing_is_trimmed_in_the_background_while_inodegc_is_stopped() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file")
    driver.drive(driver.engine.cleanup.stop())
    driver.engine.eviction.trim_later(ino, record_of(driver.volume, ino).generation)
    driver.trim()
    assert driver.engine.eviction.to_trim


def test_idle_inodes_go_before_clean_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = fresh_driver()
    idle_inodes(driver)
    noticed: list[int] = []
    monkeypatch.setattr(driver.engine.payment, "noted", lambda: noticed.append(1))
    blocks = driver.volume.store.cache.bytes
    assert driver.reclaim(1) > 0
    assert len(driver.volume.inodes.table) < COUNT
    assert driver.volume.store.cache.bytes == blocks
    assert driver.reclaim(1 << 30) > 0
    assert not driver.volume.inodes.lru
    assert driver.volume.store.cache.bytes < blocks
    assert driver.engine.eviction.direct_reclaims_total == len(noticed) == 2


def test_inodes_that_need_an_inactivation_go_to_the_policy() -> None:
    driver = fresh_driver(evict="inline")
    idle_inodes(driver)
    for inode in driver.volume.inodes.table.values():
        inode.lazy_atime = 10**18
    driver.drive(driver.engine.eviction.shrink(1 << 30))
    assert driver.volume.inodes.inactivated_total == COUNT


def test_a_full_table_of_debts_is_waited_for() -> None:
    driver = fresh_driver()
    cleanup, debts = driver.engine.cleanup, driver.volume.inodes.debts
    debts.count_max = 0
    assert list(cleanup.wait_for_debt_slot()) == [], "nothing is owed that could be paid"
    debts.count_max = 2
    debts.add(70, 1, 10**18)
    assert list(cleanup.wait_for_debt_slot()) == []
    debts.count_max = 1
    assert [type(wait) for wait in cleanup.wait_for_debt_slot()] == [DebtsFit]
    assert driver.engine.payment.due


# --- looks for idle files ---
def with_blocks_past_eof(driver: Driver, name: bytes) -> int:
    ino = make(driver, name)
    driver.volume.hold(record_of(driver.volume, ino))
    for offset in range(0, 600_000, 20_000):
        driver.write(ino, offset, b"x" * 20_000)
    return ino


def test_a_look_is_due_four_times_in_a_lifetime() -> None:
    eviction = fresh_driver().engine.eviction
    assert next(eviction.await_trims()).seconds_max == PREALLOCATION_LIFETIME_SECONDS / 4
    eviction.lifetime_seconds = 1e-9
    assert next(eviction.await_trims()).seconds_max == TRIM_LOOK_SECONDS_MIN


def test_a_look_finds_the_files_that_have_not_grown() -> None:
    driver = fresh_driver()
    eviction, store = driver.engine.eviction, driver.volume.store
    idle = with_blocks_past_eof(driver, b"idle")
    now_ns = store.clock() + int(eviction.lifetime_seconds * 1e9)
    store.clock = lambda: now_ns
    growing = with_blocks_past_eof(driver, b"growing")
    wait = next(task := eviction.await_trims())
    assert not wait.over()
    assert not eviction.to_trim
    assert list(task) == []  # it has timed out
    assert [ino for ino, _ in eviction.to_trim] == [idle]
    assert growing in {ino for ino, _ in driver.volume.past_eof}


def test_queued_files_do_not_wait_for_a_look() -> None:
    driver = fresh_driver()
    eviction = driver.engine.eviction
    told: list[int] = []
    eviction.on_trim = lambda: told.append(1)
    task = eviction.await_trims()
    wait = next(task)
    eviction.trim_later(make(driver, b"file"), 1)
    assert wait.over()
    assert list(task) == list(eviction.await_trims()) == []
    driver.drive(driver.engine.cleanup.stop())
    wait = next(eviction.await_trims())
    assert not wait.over()
    driver.engine.cleanup.resume()
    assert wait.over()
    assert len(told) == 2


def test_a_look_is_due_at_once_when_the_lifetime_changes() -> None:
    eviction = fresh_driver().engine.eviction
    task = eviction.await_trims()
    wait = next(task)
    eviction.set_lifetime(7)
    assert wait.over()
    assert list(task) == []
    wait = next(eviction.await_trims())
    assert (wait.over(), wait.seconds_max) == (False, 7 / 4)
