"""Writes of many operations on a disk that is too small for them."""

from __future__ import annotations

import errno

from deferfs.volume import writing
from tests.unit.volumes import fails_with, free_blocks, fresh_driver, look_up, make

IMAGE = 3 << 20


def test_what_fits_is_written_and_told() -> None:
    driver = fresh_driver(IMAGE)
    ino = make(driver, b"file")
    wanted = bytes(2 * IMAGE)
    done = driver.drive(writing.write_all(driver.engine, writing.part_of(driver.engine, ino), 0, wanted))
    assert 0 < done < len(wanted)
    assert look_up(driver, b"file").size == done
    assert driver.volume.store.space.available == 0


def test_a_caller_that_cannot_be_told_of_less_gets_an_error_and_what_fits_is_written() -> None:
    driver = fresh_driver(IMAGE)
    ino = make(driver, b"file")
    free = free_blocks(driver)
    part = writing.part_of(driver.engine, ino)
    with fails_with(errno.ENOSPC):
        driver.drive(writing.write_all(driver.engine, part, 0, bytes(2 * IMAGE), whole=True))
    assert look_up(driver, b"file").size > free * driver.volume.store.fmt.block_size // 2
    assert driver.volume.store.space.available == 0
    assert driver.drive(writing.write_all(driver.engine, part, 0, b"x" * 5000, whole=True)) == 5000
