"""What inodegc waits for before it writes, and how it is stopped and started."""

from __future__ import annotations

import errno

import pytest

from deferfs.errors import FsError
from deferfs.volume.waits import LessDirty
from tests.unit.volumes import fresh_driver, make, unlink


@pytest.mark.parametrize(
    ("sixteenths", "hurried", "waits"),
    [(1, False, False), (3, False, True), (3, True, False), (5, True, True)],
)
def test_payment_waits_beyond_an_eighth_dirty_and_in_a_hurry_beyond_a_quarter(
    sixteenths: int, hurried: bool, waits: bool
) -> None:
    driver = fresh_driver()
    make(driver, b"file")  # something that can come home
    store = driver.volume.store
    store.memory.set_limit(store.dirty_bytes * 16 // sixteenths)
    found = list(driver.engine.cleanup.before_payment(hurried=hurried))
    assert [type(wait) for wait in found] == ([LessDirty] if waits else [])


@pytest.mark.parametrize(("read_only", "code"), [(False, errno.EBUSY), (True, errno.EROFS)])
def test_inodegc_is_not_started_while_the_volume_is_frozen_or_read_only(read_only: bool, code: int) -> None:
    driver = fresh_driver()
    freezing, cleanup = driver.engine.freezing, driver.engine.cleanup
    driver.drive(freezing.make_read_only() if read_only else freezing.freeze())
    with pytest.raises(FsError) as caught:
        cleanup.resume()
    assert caught.value.errno == code
    assert cleanup.stopped
    driver.drive(freezing.make_writable() if read_only else freezing.thaw())
    assert not cleanup.stopped


@pytest.mark.parametrize("read_only", [False, True])
def test_a_stopped_inodegc_stays_stopped_after_a_freeze(read_only: bool) -> None:
    driver = fresh_driver()
    freezing, cleanup = driver.engine.freezing, driver.engine.cleanup
    driver.drive(cleanup.stop())
    driver.drive(freezing.make_read_only() if read_only else freezing.freeze())
    driver.drive(freezing.make_writable() if read_only else freezing.thaw())
    assert cleanup.stopped
    cleanup.resume()
    assert not cleanup.stopped


def test_a_stopped_inodegc_cleans_up_at_the_end_of_the_mount() -> None:
    driver = fresh_driver()
    driver.drive(driver.engine.cleanup.stop())
    make(driver, b"file")
    unlink(driver, b"file")
    assert driver.volume.store.orphans.count == 1
    driver.close()
    assert driver.volume.store.orphans.count == 0
