from __future__ import annotations

import errno

import pytest

from deferfs.device import FailingDevice, Fault, Request
from deferfs.ondisk.format import SUPERBLOCK_BYTES
from deferfs.ondisk.superblock import Superblock
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit
from deferfs.store.io import Flush, Write, perform
from deferfs.store.plan import Plan
from deferfs.store.store import Store
from deferfs.volume.driver import Driver
from tests.unit.store.journals import check, fill, free
from tests.unit.volumes import fails_with, fresh_device, fresh_driver, make, names, open_driver, reopened


def test_images_home_then_the_superblock_each_behind_a_barrier() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    made = fill(store, 100)
    driver.commit()
    bitmap = store.superblock.bitmap_address(0)
    tid, used = store.journal.committed_tid, store.journal.used
    requests = list(checkpoint(store.journal, 77))
    *home, flush, write, last = requests
    assert (flush, last) == (Flush(), Flush())
    assert [(r.offset // 1024, len(r.buffers)) for r in home if isinstance(r, Write)] == [
        (bitmap, 1),
        (made[0], 64),
        (made[64], 36),
    ]
    assert isinstance(write, Write)
    assert write.offset in (0, 65536)
    found = Superblock.decode(write.buffers[0])
    assert (found.journal_tail, found.tail_tid, found.written_ns) == (used, tid + 1, 77)
    assert not found.clean
    assert (store.journal.used, store.journal.tail) == (0, used)
    assert store.superblock == found


def test_the_superblocks_take_turns() -> None:
    driver = fresh_driver()
    offsets = []
    for number in range(4):
        make(driver, b"%d" % number)
        driver.commit()
        requests = list(checkpoint(driver.volume.store.journal, 0))
        offsets += [r.offset for r in requests if isinstance(r, Write) and len(r.buffers[0]) == SUPERBLOCK_BYTES]
    assert offsets in ([0, 65536] * 2, [65536, 0] * 2)


def test_the_tail_moves_only_behind_the_last_barrier() -> None:
    driver = fresh_driver()
    journal = driver.volume.store.journal
    make(driver, b"a")
    driver.commit()
    before = (journal.tail, journal.used)
    for _request in checkpoint(journal, 0):
        assert (journal.tail, journal.used) == before
    assert (journal.used, len(journal.pending_home), len(journal.committed)) == (0, 0, 0)


def test_memory_comes_back_with_each_write_home() -> None:
    """What is written home may be evicted at once, and is read back as it was; the rest stays dirty."""
    driver = fresh_driver()
    store, journal = driver.volume.store, driver.volume.store.journal
    fill(store, 200)
    driver.commit()
    woken: list[int] = []
    journal.on_home = lambda: woken.append(store.dirty_bytes)
    images = dict(journal.pending_home)
    for request in checkpoint(journal, 0):
        answer = perform(driver.device, request)
        assert answer is None
        for address in images.keys() - journal.pending_home.keys():
            data = driver.device.read(address * store.fmt.block_size, store.fmt.block_size)
            written = isinstance(request, Write) and address * store.fmt.block_size != request.offset
            assert not written or data == images[address][1].encode(store.fmt, address)
    assert len(woken) > 2
    assert sorted(woken, reverse=True) == woken
    assert woken[-1] == 0 == len(journal.pending_home)


def test_a_commit_during_a_checkpoint_is_not_lost() -> None:
    """At whatever request it happens: its images stay pending and its frees wait."""
    at = 0
    while True:
        driver = fresh_driver()
        store, journal = driver.volume.store, driver.volume.store.journal
        made = fill(store, 70)
        driver.commit()
        job = checkpoint(journal, 0)
        committed = False
        for seen, request in enumerate(job):
            perform(driver.device, request)
            if seen == at:
                committed = True
                during(driver, made)
                assert store.space.pending_blocks == 10, "not reusable while home writes are under way"
        if not committed:
            break
        assert store.space.pending_blocks == 0
        check(journal)
        again = reopened(driver)
        assert names(again) == [b"meanwhile"]
        plan = Plan(again.volume.store)
        with pytest.raises(Exception, match=r"XattrBlock|magic"):
            plan.get(made[0], XattrBlock)
        at += 1
    assert at == 6


def during(driver: Driver, made: list[int]) -> None:
    make(driver, b"meanwhile")
    free(driver.volume.store, made[:10])
    plan = Plan(driver.volume.store)
    plan.modify(made[20], XattrBlock).payload = b"newer"
    plan.apply()
    driver.commit()


def payload(store: Store, driver: Driver, address: int) -> bytes:
    return driver.run(lambda plan: plan.get(address, XattrBlock)).payload


def test_an_image_committed_again_meanwhile_stays_in_the_log() -> None:
    driver = fresh_driver()
    store, journal = driver.volume.store, driver.volume.store.journal
    made = fill(store, 70)
    driver.commit()
    job = checkpoint(journal, 0)
    perform(driver.device, next(job))
    during(driver, made)
    for request in job:
        perform(driver.device, request)
    assert made[20] in journal.pending_home
    again = reopened(driver)
    assert payload(again.volume.store, again, made[20]) == b"newer"
    assert payload(again.volume.store, again, made[21]) == b"x"


def test_closing_marks_the_image_clean() -> None:
    driver = fresh_driver()
    make(driver, b"a")
    driver.close()
    found = [Superblock.decode(driver.device.read(at, 512)) for at in (0, 65536)]
    newest = max(found, key=lambda copy: copy.sequence)
    assert newest.clean
    assert newest.tail_tid == driver.volume.store.journal.running.tid


def test_a_second_checkpoint_cannot_run_beside_the_first() -> None:
    driver = fresh_driver()
    make(driver, b"a")
    driver.commit()
    under_way = checkpoint(driver.volume.store.journal, 0)
    next(under_way)
    with pytest.raises(AssertionError, match="one checkpoint"):
        next(checkpoint(driver.volume.store.journal, 0))


def test_the_abort_latch_after_an_error_at_every_request() -> None:
    probe = fresh_driver()
    fill(probe.volume.store, 100)
    probe.commit()
    expected = list(checkpoint(probe.volume.store.journal, 0))
    for at, request in enumerate(expected):
        device = FailingDevice(fresh_device())
        driver = open_driver(device)
        journal = driver.volume.store.journal
        fill(driver.volume.store, 100)
        driver.commit()
        make(driver, b"a")
        driver.commit()
        before = (journal.tail, journal.used)
        kind = Request.FLUSH if isinstance(request, Flush) else Request.WRITE
        earlier = sum(type(other) is type(request) for other in expected[:at])
        device.add(Fault(frozenset({kind}), skip=earlier))
        with fails_with(errno.EIO):
            driver.checkpoint()
        assert device.failures == 1
        assert (journal.tail, journal.used) == before
        assert not journal.checkpointing
        for action in (driver.commit, driver.checkpoint):
            with fails_with(errno.EIO):
                action()
        assert names(reopened(driver)) == [b"a"]


def test_blocks_that_wait_for_a_failed_checkpoint_are_never_reused() -> None:
    device = FailingDevice(fresh_device())
    driver = open_driver(device)
    store, journal = driver.volume.store, driver.volume.store.journal
    made = fill(store, 10)
    driver.commit()
    job = checkpoint(journal, 0)
    request = next(job)
    free(store, made)
    list(commit(journal, 0))
    assert store.space.pending_blocks == 10
    with fails_with(errno.EIO):
        job.throw(OSError(errno.EIO, "broken"))
    assert isinstance(request, Write)
    assert store.space.pending_blocks == 10


def test_writeback_for_memory_needs_no_barrier_and_the_log_keeps_all() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    journal = store.journal
    fill(store, 100)
    driver.commit()
    used, tail, superblock = journal.used, journal.tail, store.superblock
    requests = []
    for request in bring_home(journal):
        requests.append(request)
        perform(driver.device, request)
    assert requests
    assert all(isinstance(request, Write) for request in requests)
    assert (journal.used, journal.tail, store.superblock) == (used, tail, superblock)
    assert (len(journal.committed), len(journal.pending_home), store.dirty_bytes) == (1, 0, 0)
    assert list(bring_home(journal)) == []
    found = journal.statistics()
    assert (found.write_backs_total, found.checkpoints_total) == (2, 0)
    barriers_and_superblock = list(checkpoint(journal, 0))
    assert len(barriers_and_superblock) == 3
    assert (journal.used, len(journal.committed)) == (0, 0)


def test_blocks_freed_while_written_home_wait_for_the_end() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    journal, space = store.journal, store.space
    made = fill(store, 3)
    driver.commit()
    job = bring_home(journal)
    next(job)
    free(store, made)
    driver.commit()
    assert journal.release_later
    before = space.free_blocks
    for request in job:
        perform(driver.device, request)
    assert space.free_blocks == before + 3
    assert journal.release_later == []
