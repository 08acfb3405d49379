"""The time machine: every transaction of the log, exactly as it was, or a clear refusal."""

from __future__ import annotations

import stat

import pytest

from deferfs.check import check_image
from deferfs.device import MemoryDevice, OverlayDevice
from deferfs.errors import ImageError
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.store.checkpoint import checkpoint
from deferfs.store.io import Write, perform, run_job
from deferfs.store.past import Logged, look_back, past_device, read_history
from deferfs.store.recovery import read_superblock
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from tests.unit.volumes import ROOT, fresh_driver, make, make_file, names, open_driver, settle, snapshot_of, unlink


def history(driver: Driver, steps: int = 10) -> dict[int, set[bytes]]:
    """Names are made, renamed and removed; transaction -> the names after it."""
    found: dict[int, set[bytes]] = {driver.volume.store.superblock.tail_tid - 1: set(names(driver))}
    large = make(driver, b"large", stat.S_IFDIR | 0o755)
    for step in range(steps):
        make_file(driver, b"file %d" % step, b"x" * 700 * step)
        for entry in range(20):
            make(driver, b"%d of %d" % (entry, step), parent=large)
        if step > 3:
            driver.run(namespace.rename, driver.volume, ROOT, b"file %d" % step, ROOT, b"moved %d" % step, 0)
            unlink(driver, b"%s %d" % (b"moved" if step > 6 else b"file", step - 3))
        driver.collect()
        driver.commit()
        found[driver.volume.store.journal.running.tid - 1] = set(names(driver))
    return found


def crashed(driver: Driver) -> MemoryDevice:
    return MemoryDevice.from_bytes(snapshot_of(driver))


def names_at(device: MemoryDevice, tid: int) -> set[bytes]:
    past = past_device(device, tid)
    report = check_image(past)
    assert report.clean, report.problems
    assert report.complete
    return set(names(open_driver(past, read_only=True)))


def past_or_none(device: MemoryDevice, tid: int) -> OverlayDevice | None:
    """None when it cannot be reconstructed."""
    superblock = run_job(device, read_superblock(device.size))
    lost = run_job(device, look_back(superblock, run_job(device, read_history(superblock)), tid)).lost
    return None if lost else past_device(device, tid)


def test_every_transaction_is_as_it_was() -> None:
    driver = fresh_driver(journal_blocks=2048)
    settle(driver)
    expected = history(driver)
    device = crashed(driver)
    before = device.snapshot()
    assert len(expected) == 11
    for tid, there in expected.items():
        assert names_at(device, tid) == there
    assert device.snapshot() == before


def test_a_freed_block_has_no_image_any_more() -> None:
    """It may be file data by then: what a mount of the past reads must not be hidden by what was there before."""
    driver = fresh_driver()
    superblock, size = driver.volume.store.superblock, driver.volume.store.fmt.block_size
    first, home = superblock.tail_tid, superblock.blocks - 5
    made = Logged(first, [(home, b"m" * size)], [])
    freed = Logged(first + 1, [], [home])
    again = Logged(first + 2, [(home, b"n" * size)], [])
    images = [
        run_job(driver.device, look_back(superblock, [made, freed, again], first + at)).images for at in range(-1, 3)
    ]
    assert images == [{}, {home: b"m" * size}, {}, {home: b"n" * size}]


def test_transactions_outside_of_the_log_are_refused() -> None:
    driver = fresh_driver(journal_blocks=2048)
    settle(driver)
    expected = history(driver, 3)
    device = crashed(driver)
    for tid in (min(expected) - 1, max(expected) + 1):
        with pytest.raises(ImageError, match=f"transaction {tid} is not in the log, which holds transactions"):
            past_device(device, tid)
    driver.close()
    closed = MemoryDevice.from_bytes(snapshot_of(driver))
    tail = run_job(closed, read_superblock(closed.size)).tail_tid
    with pytest.raises(ImageError, match="which holds no transaction"):
        past_device(closed, tail)
    assert names_at(closed, tail - 1) == expected[max(expected)]


def test_an_unfinished_checkpoint_hides_what_it_has_overwritten() -> None:
    """Images go home before the tail moves: at each write, every transaction is told as it was, or refused."""
    driver = fresh_driver(journal_blocks=2048)
    settle(driver)
    expected = history(driver)
    journal = driver.volume.store.journal
    job = checkpoint(journal, 5)
    told = refused = 0
    answer: bytes | None = None
    writes = 0
    while True:
        try:
            request = job.send(answer)
        except StopIteration:
            break
        answer = perform(driver.device, request)
        if not isinstance(request, Write) or request.offset in SUPERBLOCK_OFFSETS:
            continue
        writes += 1
        if writes % 4:
            continue
        device = crashed(driver)
        for tid, there in expected.items():
            past = past_or_none(device, tid)
            if past is None:
                refused += 1
                continue
            assert set(names(open_driver(past, read_only=True))) == there
            told += 1
        assert names_at(device, max(expected)) == expected[max(expected)]
    assert told
    assert refused


def test_a_freed_block_that_holds_data_by_now_hides_its_past() -> None:
    driver = fresh_driver(journal_blocks=2048)
    large = make(driver, b"large", stat.S_IFDIR | 0o755)
    for entry in range(200):
        make(driver, b"entry %d" % entry, parent=large)
    settle(driver)
    for entry in range(200):
        unlink(driver, b"entry %d" % entry, large)
    driver.collect()
    driver.commit()
    device = crashed(driver)
    superblock = run_job(device, read_superblock(device.size))
    found = run_job(device, read_history(superblock))
    revoked = next(home for transaction in found for home in transaction.revokes)
    tid = superblock.tail_tid - 1
    assert not run_job(device, look_back(superblock, found, tid)).lost
    device.write(revoked * superblock.block_size, b"somebody's data" * 50)
    assert (revoked in {home for home, _ in run_job(device, look_back(superblock, found, tid)).lost}) is True
    with pytest.raises(ImageError, match="cannot be reconstructed"):
        past_device(device, tid)


def test_the_past_is_not_written() -> None:
    driver = fresh_driver(journal_blocks=2048)
    settle(driver)
    expected = history(driver, 2)
    device = crashed(driver)
    before = device.snapshot()
    past = past_device(device, max(expected))
    assert isinstance(past, OverlayDevice)
    other = open_driver(past)
    make(other, b"only in memory")
    other.close()
    assert device.snapshot() == before
