"""What an operation is given of what it has waited for."""

from __future__ import annotations

import pytest

from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.needs import NeedBlocks, NeedLogSpace
from deferfs.volume.driver import Driver
from deferfs.volume.holding import Holding
from deferfs.volume.waits import ReadBytes
from tests.unit.volumes import fresh_driver

SIZE = 1024


def two_blocks() -> tuple[Driver, list[int]]:
    """Addresses of two blocks that are on the disk and not in memory."""
    driver = fresh_driver()
    fmt, addresses = driver.volume.store.fmt, [5000, 5001]
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


def test_log_space_is_given_back_at_the_end() -> None:
    driver = fresh_driver()
    holding = Holding(driver.engine, reserve=False)
    driver.drive(holding.satisfy(NeedLogSpace(10)))
    assert driver.volume.store.journal.granted_credits == 10
    holding.end()
    assert driver.volume.store.journal.granted_credits == 0
