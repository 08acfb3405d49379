"""What inodegc waits for before it writes."""

from __future__ import annotations

import pytest

from deferfs.volume.waits import LessDirty
from tests.unit.volumes import fresh_driver, make


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
