"""Which backlog is too long, and which caller waits for it."""

from __future__ import annotations

from typing import get_args

from deferfs.volume.driver import Driver
from deferfs.volume.throttle import Amount, Duration, Throttle
from deferfs.volume.waits import Admitted
from tests.unit.volumes import fresh_driver, make_file, record_of, unlink

COUNT = 6


def backlog() -> tuple[Driver, Throttle]:
    """Deleted files of three blocks each, which wait."""
    driver = fresh_driver(block_size=1024)
    for number in range(COUNT):
        name = b"%d" % number
        ino = make_file(driver, name, bytes(3000))
        driver.volume.lookup_count(record_of(driver.volume, ino))
        unlink(driver, name)
        driver.forget(ino, 1)
    throttle = driver.engine.throttle
    throttle.age_seconds = 1e9
    return driver, throttle


def test_each_limit_counts() -> None:
    driver, throttle = backlog()
    assert throttle.reason() == ""
    throttle.age_seconds = 0
    assert throttle.reason() == "age"
    throttle.extents = COUNT - 1
    assert throttle.reason() == "extents"
    throttle.bytes = driver.volume.inodes.pending_blocks * 1024 - 1
    assert throttle.reason() == "bytes"
    throttle.inodes = COUNT - 1
    assert throttle.reason() == "inodes"
    driver.collect()
    assert throttle.reason() == ""


def test_a_caller_does_not_overtake_one_that_waits() -> None:
    driver, throttle = backlog()
    throttle.inodes = COUNT - 1
    first = throttle.admit()
    assert isinstance(next(first), Admitted)
    throttle.inodes = 1 << 20
    assert throttle.must_wait()
    second = throttle.admit()
    assert isinstance(next(second), Admitted)
    throttle.progress()
    assert list(first) == list(second) == []
    assert throttle.waiting == throttle.expired_total == 0
    assert driver.engine.cleanup.pushed


def test_no_caller_waits_for_inodegc_that_rests() -> None:
    driver, throttle = backlog()
    throttle.inodes = 0
    driver.drive(driver.engine.cleanup.stop())
    assert not throttle.must_wait()
    assert list(throttle.admit()) == []


def test_what_fits_a_new_limit_is_admitted() -> None:
    _, throttle = backlog()
    throttle.set_amount("inodes", COUNT - 1)
    task = throttle.admit()
    wait = next(task)
    throttle.set_duration("deadline_seconds", 7)
    assert not wait.over()
    throttle.set_amount("inodes", COUNT + 1)
    assert wait.over()
    assert list(task) == list(throttle.admit()) == []


def test_every_limit_has_a_name() -> None:
    _, throttle = backlog()
    before = set(vars(throttle))
    for amount in get_args(Amount):
        throttle.set_amount(amount, 3)
        assert getattr(throttle, amount) == 3
    for duration in get_args(Duration):
        throttle.set_duration(duration, 4.5)
        assert getattr(throttle, duration) == 4.5
    assert set(vars(throttle)) == before
