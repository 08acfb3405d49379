"""File data gets a barrier before it is much, and requests that write wait for it."""

from __future__ import annotations

import pytest

from deferfs.device import FailingDevice, Fault, Request
from deferfs.errors import FsError
from deferfs.limits import MIB, WRITE_OUT_BYTES_MAX, WRITE_OUT_BYTES_MIN
from deferfs.volume.driver import Driver
from deferfs.volume.waits import DataFlushed
from tests.unit.volumes import fresh_device, fresh_driver, make, open_driver

DATA_BYTES = 100_000


def written(driver: Driver) -> int:
    """Write some data; how much a barrier is needed for."""
    before = driver.engine.write_out.unflushed_bytes
    driver.write(make(driver, b"file"), 0, bytes(DATA_BYTES))
    return driver.engine.write_out.unflushed_bytes - before


def test_data_counts_until_a_barrier_and_what_is_kept_in_the_inode_does_not() -> None:
    driver = fresh_driver()
    write_out = driver.engine.write_out
    driver.write(make(driver, b"small"), 0, b"inline")
    assert write_out.unflushed_bytes == 0
    assert DATA_BYTES <= written(driver) < 2 * DATA_BYTES
    driver.drive(write_out.flush())
    assert (write_out.unflushed_bytes, write_out.flushes_total) == (0, 1)


def test_data_written_during_a_barrier_needs_another_one() -> None:
    driver = fresh_driver()
    write_out = driver.engine.write_out
    written(driver)
    barrier = write_out.flush()
    next(barrier)
    write_out.wrote(7)
    with pytest.raises(StopIteration):
        barrier.send(None)
    assert write_out.unflushed_bytes == 7


def test_a_barrier_is_due_long_before_requests_wait() -> None:
    write_out = fresh_driver(memory_bytes=128 * MIB).engine.write_out
    due: list[int] = []
    write_out.on_due = lambda: due.append(write_out.unflushed_bytes)
    while not write_out.too_much:
        write_out.wrote(MIB)
    assert due[0] == 9 * MIB == write_out.bytes_max // 4 + MIB
    assert due[-1] == 33 * MIB == write_out.bytes_max + MIB


@pytest.mark.parametrize(("budget", "most"), [(4, WRITE_OUT_BYTES_MIN), (128, 32 * MIB), (4096, WRITE_OUT_BYTES_MAX)])
def test_the_limit_is_a_share_of_the_budget_between_bounds(budget: int, most: int) -> None:
    assert fresh_driver(memory_bytes=budget * MIB).engine.write_out.bytes_max == most


def test_the_limit_follows_the_budget() -> None:
    driver = fresh_driver(memory_bytes=4096 * MIB)
    write_out = driver.engine.write_out
    write_out.wrote(20 * MIB)
    found = []
    for budget in (4096, 64, 8, 128):
        driver.engine.reclaim.set_memory(budget * MIB)
        found.append((write_out.bytes_max // MIB, write_out.due, write_out.too_much))
    assert found == [(32, True, False), (16, True, True), (16, True, False), (32, True, False)]


def test_a_request_is_let_in_when_there_is_less() -> None:
    driver = fresh_driver()
    write_out = driver.engine.write_out
    assert list(write_out.let_in()) == []
    write_out.wrote(write_out.bytes_max + 1)
    task = write_out.let_in()
    wait = next(task)
    assert isinstance(wait, DataFlushed)
    assert not wait.over()
    driver.answer(wait)
    assert wait.over()
    assert write_out.unflushed_bytes == 0


def test_barriers_begin_and_requests_do_not_wait_with_a_small_budget() -> None:
    """Their buffers would be more than what is promised."""
    write_out = fresh_driver(memory_bytes=4 * MIB).engine.write_out
    write_out.wrote(10 * write_out.bytes_max)
    assert write_out.due
    assert list(write_out.let_in()) == []


def test_a_barrier_that_fails_aborts_the_journal_and_lets_all_in() -> None:
    device = FailingDevice(fresh_device())
    driver = open_driver(device)
    write_out = driver.engine.write_out
    written(driver)
    write_out.wrote(write_out.bytes_max)
    wait = next(write_out.let_in())
    device.add(Fault(frozenset({Request.FLUSH})))
    with pytest.raises(FsError):
        driver.drive(write_out.flush())
    assert driver.volume.store.journal.aborted is not None
    assert wait.over()
    assert not write_out.due
