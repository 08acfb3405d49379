from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest

from deferfs.device import FailingDevice, Fault, MemoryDevice, Request
from deferfs.ondisk.format import HEADER_BYTES
from deferfs.ondisk.journal import MAGIC_COMMIT, MAGIC_DESCRIPTOR, MAGIC_REVOKE, peek
from deferfs.store.commit import commit
from deferfs.store.io import Discard, Flush, Write
from deferfs.store.io import Request as IoRequest
from deferfs.store.plan import Plan
from deferfs.volume.driver import Driver
from tests.unit.store.journals import fill, free
from tests.unit.volumes import (
    fails_with,
    fresh_device,
    fresh_driver,
    make,
    make_file,
    names,
    open_driver,
    record,
    reopened,
    snapshot_of,
    unlink,
)


def kinds(driver: Driver, requests: list[IoRequest]) -> list[str]:
    """One letter for each log block that is written (Revoke, Descriptor, Image, Commit), `|` for a flush."""
    letters = {MAGIC_REVOKE: "R", MAGIC_DESCRIPTOR: "D", MAGIC_COMMIT: "C"}
    found = []
    for request in requests:
        if isinstance(request, Write):
            headers = [peek(driver.volume.store.fmt, block) for block in request.buffers]
            found.append("".join(letters[header[0]] if header else "I" for header in headers))
        else:
            found.append("|" if isinstance(request, Flush) else "discard")
    return found


def requests_of(driver: Driver, *, discard: bool = False) -> list[str]:
    return kinds(driver, list(commit(driver.volume.store.journal, 5, discard=discard)))


def nothing(driver: Driver) -> None:
    """No change."""


def metadata(driver: Driver) -> None:
    fill(driver.volume.store, 3)


def revokes(driver: Driver) -> None:
    made = fill(driver.volume.store, 3)
    driver.commit()
    free(driver.volume.store, made)


def data(driver: Driver) -> None:
    plan = Plan(driver.volume.store)
    first, _ = plan.allocate(0, 1)
    plan.create(first, driver.volume.store.cache.entries[driver.volume.store.inodes.root_address].obj)
    plan.data_writes.append((0, b""))
    plan.apply()


def many(driver: Driver) -> None:
    fill(driver.volume.store, 80)


def at_the_end_of_the_log(driver: Driver) -> None:
    journal = driver.volume.store.journal
    journal.head = journal.blocks - 2
    fill(driver.volume.store, 3)


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (nothing, ["|"]),
        (metadata, ["DIIIIC", "|"]),
        (revokes, ["R", "DIC", "|"]),
        (data, ["DII", "|", "C", "|"]),
        (many, ["D" + "I" * 62, "D" + "I" * 19 + "C", "|"]),
        (at_the_end_of_the_log, ["DI", "IIIC", "|"]),
    ],
)
def test_a_commit_writes_in_this_order(prepare: Callable[[Driver], None], expected: list[str]) -> None:
    driver = fresh_driver(journal_blocks=256)
    prepare(driver)
    assert requests_of(driver) == expected


def test_the_log_is_written_from_its_head_on_and_round() -> None:
    driver = fresh_driver()
    journal = driver.volume.store.journal
    journal.head = journal.blocks - 2
    fill(driver.volume.store, 3)
    first, second = (r for r in commit(journal, 5) if isinstance(r, Write))
    assert first.offset == (journal.start + journal.blocks - 2) * 1024
    assert second.offset == journal.start * 1024
    assert journal.head == 4


def test_the_record_counts_the_blocks_and_carries_the_time() -> None:
    driver = fresh_driver()
    fill(driver.volume.store, 3)
    (write, _) = commit(driver.volume.store.journal, 5)
    assert isinstance(write, Write)
    blocks, _, time_ns = struct.unpack_from("<IIq", write.buffers[-1], HEADER_BYTES)
    assert (blocks, time_ns) == (5, 5)
    assert driver.volume.store.journal.single_barrier_commits_total == 1


def test_a_commit_returns_the_tid_that_is_durable() -> None:
    driver = fresh_driver()
    journal = driver.volume.store.journal
    tid = journal.running.tid
    assert driver.job(commit(journal, 0)) == tid - 1
    make(driver, b"a")
    assert driver.job(commit(journal, 0)) == tid
    assert driver.job(commit(journal, 0)) == tid == journal.committed_tid


def test_operations_go_on_while_a_commit_is_under_way() -> None:
    """What they change belongs to the next transaction, even in the same block."""
    driver = fresh_driver()
    ino = make_file(driver, b"a", b"x" * 5000)
    plan = Plan(driver.volume.store)
    driver.volume.store.inodes.modify(plan, ino).uid = 1
    plan.apply()
    job = commit(driver.volume.store.journal, 0)
    request = next(job)
    plan = Plan(driver.volume.store)
    driver.volume.store.inodes.modify(plan, ino).uid = 2
    plan.apply()
    make(driver, b"b")
    try:
        while True:
            if isinstance(request, Write):
                driver.device.writev(request.offset, request.buffers)
            request = next(job)
    except StopIteration:
        pass
    again = reopened(driver)
    assert names(again) == [b"a"]
    assert record(again, ino).uid == 1
    assert record(driver, ino).uid == 2


def test_a_second_commit_cannot_run_beside_the_first() -> None:
    driver = fresh_driver()
    make(driver, b"a")
    job = commit(driver.volume.store.journal, 0)
    next(job)
    with pytest.raises(AssertionError, match="one commit"):
        next(commit(driver.volume.store.journal, 0))


def test_freed_blocks_can_be_used_again_only_behind_the_last_barrier() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    made = fill(store, 3)
    driver.commit()
    free(store, made)
    free_before = store.space.free_blocks
    for _request in commit(store.journal, 0):
        assert (store.space.free_blocks, store.space.pending_blocks) == (free_before, 3)
        assert store.space.unavailable(0).count(1, made[0], made[0] + 3) == 3
    assert (store.space.free_blocks, store.space.pending_blocks) == (free_before + 3, 0)


def test_discards_follow_the_commit_and_come_before_the_reuse() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    made = fill(store, 3)
    driver.commit()
    free(store, made)
    pending = []
    requests = []
    for request in commit(store.journal, 0, discard=True):
        requests.append(request)
        pending.append(store.space.pending_blocks)
    assert requests[-4:] == [Flush(), *(Discard(address * 1024, 1024) for address in made)]
    assert set(pending) == {3}
    assert store.space.pending_blocks == 0


def test_a_failed_discard_does_no_harm() -> None:
    device = FailingDevice(fresh_device())
    driver = open_driver(device)
    store = driver.volume.store
    made = fill(store, 3)
    driver.commit()
    free(store, made)
    device.add(Fault(frozenset({Request.DISCARD}), sticky=True))
    driver.job(commit(store.journal, 0, discard=True))
    assert store.space.pending_blocks == 0
    assert store.journal.aborted is None


def some_work(driver: Driver, *, ordered: bool) -> None:
    made = fill(driver.volume.store, 70)
    driver.commit()
    free(driver.volume.store, made)
    make(driver, b"new")
    if ordered:
        make_file(driver, b"big", b"x" * 3000)


def assert_latched(driver: Driver) -> None:
    """Nothing can be made durable or changed any more, and nothing is written."""
    before = snapshot_of(driver)
    actions: list[tuple[Callable[[], object], int]] = [
        (driver.commit, errno.EIO),
        (driver.checkpoint, errno.EIO),
        (lambda: driver.fsync(1), errno.EIO),
        (lambda: make(driver, b"more"), errno.EROFS),
        (lambda: unlink(driver, b"new"), errno.EROFS),
    ]
    for action, code in actions:
        with fails_with(code):
            action()
    assert b"new" in names(driver), "looking is still possible"
    assert snapshot_of(driver) == before


@pytest.mark.parametrize("ordered", [False, True])
def test_the_abort_latch_after_an_error_at_every_request(ordered: bool) -> None:
    probe = fresh_driver()
    some_work(probe, ordered=ordered)
    expected = requests_of(probe)
    assert len(expected) == 5 if ordered else 3
    for at, letter in enumerate(expected):
        device = FailingDevice(fresh_device())
        driver = open_driver(device)
        some_work(driver, ordered=ordered)
        journal = driver.volume.store.journal
        pending = driver.volume.store.space.pending_blocks
        kind = Request.FLUSH if letter == "|" else Request.WRITE
        earlier = sum((other == "|") == (letter == "|") for other in expected[:at])
        device.add(Fault(frozenset({kind}), skip=earlier))
        with fails_with(errno.EIO):
            driver.commit()
        assert device.failures == 1
        assert journal.aborted is not None
        assert "injected" in journal.statistics().aborted
        assert driver.volume.store.space.pending_blocks == pending, "nothing may be reused"
        assert_latched(driver)
        again = reopened(driver)
        durable = at >= len(expected) - 1  # only the last barrier was missing
        assert (b"new" in names(again)) == durable


def test_a_failed_flush_without_changes_latches_too() -> None:
    for action in (Driver.commit, lambda driver: Driver.fsync(driver, 1)):
        device = FailingDevice(fresh_device())
        driver = open_driver(device)
        device.add(Fault(frozenset({Request.FLUSH})))
        for _ in range(2):
            with fails_with(errno.EIO):
                action(driver)
        assert isinstance(device.inner, MemoryDevice)
