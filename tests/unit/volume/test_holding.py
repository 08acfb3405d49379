"""What an operation is given of what it has waited for."""

from __future__ import annotations

import pytest

from deferfs.device.base import Device
from deferfs.device.wrap import WrappingDevice
from deferfs.errors import FsError
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.needs import NeedBlocks, NeedLogSpace
from deferfs.volume.driver import Driver
from deferfs.volume.holding import Holding
from deferfs.volume.waits import ReadBytes
from tests.unit.volumes import fresh_driver

SIZE = 1024


def two_blocks(second: int = 5100) -> tuple[Driver, list[int]]:
    """Addresses of two blocks that are on the disk and not in memory."""
    driver = fresh_driver()
    fmt, addresses = driver.volume.store.fmt, [5000, second]
    content = XattrBlock(9, b"value", 0)
    for address in addresses:
        driver.device.write(address * SIZE, content.encode(fmt, address))
    return driver, addresses


def test_blocks_that_are_there_are_held_until_the_operation_ends() -> None:
    driver, addresses = two_blocks()
    holding = Holding(driver.engine, reserve=False)
    driver.drive(holding.satisfy(NeedBlocks([(address, XattrBlock) for address in addresses])))
    entries = driver.volume.store.cache.entries
    assert [entries[address].holds for address in addresses] == [1, 1]
    holding.end()
    assert [entries[address].holds for address in addresses] == [0, 0]


@pytest.mark.parametrize("reserve", [False, True])
def test_what_is_fetched_takes_the_place_of_colder_blocks_when_the_budget_is_used_up(reserve: bool) -> None:
    driver, addresses = two_blocks()
    store = driver.volume.store
    for address in range(6000, 6050):
        store.cache.publish(address, XattrBlock(9, b"value", 0))
    used = store.memory.used
    store.memory.set_limit(used)
    holding = Holding(driver.engine, reserve=reserve)
    driver.drive(holding.satisfy(NeedBlocks([(address, XattrBlock) for address in addresses])))
    assert set(addresses) <= store.cache.entries.keys()
    assert store.memory.used <= used
    assert store.cache.evicted_total
    holding.end()


def test_after_a_wait_the_other_blocks_are_asked_for_again() -> None:
    """They may be of another use by then: the second one holds file data now."""
    driver, addresses = two_blocks()
    holding = Holding(driver.engine, reserve=False)
    need = NeedBlocks([(address, XattrBlock) for address in addresses])
    task = holding.satisfy(need)
    wait = next(task)
    assert isinstance(wait, ReadBytes)
    assert not wait.again
    wait = task.send(None)  # the first had to be waited for
    assert isinstance(wait, ReadBytes)
    with pytest.raises(StopIteration):
        task.send(b"data" * (SIZE // 4))
    assert not set(addresses) & driver.volume.store.cache.entries.keys()
    wait = next(holding.satisfy(NeedBlocks([(addresses[0], XattrBlock)])))
    assert isinstance(wait, ReadBytes)
    assert wait.again


def reads(driver: Driver, addresses: list[int], device: CountingDevice) -> list[tuple[int, int]]:
    """(first block, blocks) of each read of the device that fetches these blocks."""
    holding = Holding(driver.engine, reserve=False)
    device.seen.clear()
    driver.drive(holding.satisfy(NeedBlocks([(address, XattrBlock) for address in addresses])))
    assert [driver.volume.store.cache.entries[address].holds for address in addresses] == [1] * len(addresses)
    holding.end()
    return [(offset // SIZE, length // SIZE) for offset, length in device.seen]


class CountingDevice(WrappingDevice):
    """Notes each read. One that touches `bad` fails."""

    def __init__(self, inner: Device, bad: int = 0) -> None:
        super().__init__(inner)
        self.seen: list[tuple[int, int]] = []
        self.bad = bad

    def read(self, offset: int, length: int) -> bytes:
        self.seen.append((offset, length))
        if self.bad and offset <= self.bad * SIZE < offset + length:
            raise OSError("a bad sector")
        return super().read(offset, length)


@pytest.mark.parametrize(
    ("second", "expected"),
    [(5001, [(5000, 2)]), (5033, [(5000, 34)]), (5034, [(5000, 1), (5034, 1)])],
    ids=["adjacent", "with others between", "too far apart"],
)
def test_blocks_near_to_each_other_are_fetched_by_one_read(second: int, expected: list[tuple[int, int]]) -> None:
    driver, addresses = two_blocks(second)
    device = driver.device = CountingDevice(driver.device)
    assert reads(driver, addresses[::-1], device) == expected
    assert not {*range(5000, second + 1)} - set(addresses) & driver.volume.store.cache.entries.keys()


def test_a_bad_sector_between_two_blocks_does_not_matter() -> None:
    driver, addresses = two_blocks(5010)
    device = driver.device = CountingDevice(driver.device, bad=5005)
    assert sorted(reads(driver, addresses, device)) == [(5000, 1), (5000, 11), (5010, 1)]


def test_a_bad_sector_in_a_block_that_is_needed_fails_the_operation() -> None:
    driver, addresses = two_blocks(5010)
    device = driver.device = CountingDevice(driver.device, bad=5010)
    with pytest.raises(FsError, match="bad sector"):
        reads(driver, addresses, device)


def test_log_space_is_given_back_at_the_end() -> None:
    driver = fresh_driver()
    holding = Holding(driver.engine, reserve=False)
    driver.drive(holding.satisfy(NeedLogSpace(10)))
    assert driver.volume.store.journal.granted_credits == 10
    holding.end()
    assert driver.volume.store.journal.granted_credits == 0
