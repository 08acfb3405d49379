from __future__ import annotations

import random

import pytest

from deferfs.limits import TRANSACTION_FRACTION
from deferfs.ondisk.inode import INODE_FILE_INO
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.checkpoint import checkpoint
from deferfs.store.commit import commit
from deferfs.store.io import run_job
from deferfs.store.journal import Journal
from deferfs.store.needs import NeedLogSpace
from deferfs.store.plan import Plan
from deferfs.volume.driver import Driver
from tests.unit.store.journals import check, fill, free
from tests.unit.volumes import fresh_driver, make, make_file, unlink

MAX = 256 // TRANSACTION_FRACTION


@pytest.fixture
def driver() -> Driver:
    return fresh_driver(journal_blocks=256)


def journal_of(driver: Driver) -> Journal:
    return driver.volume.store.journal


def test_running_blocks_is_what_the_commit_takes(driver: Driver) -> None:
    journal = journal_of(driver)
    assert journal.running_blocks == 0
    for _ in range(3):
        made = fill(driver.volume.store, 20)
    free(driver.volume.store, made)
    running = journal.running_blocks
    assert running == 41 + 1 + 1 + 1
    driver.commit()
    assert (journal.used, journal.running_blocks) == (running, 0)
    check(journal)


def test_a_transaction_may_not_grow_past_a_third(driver: Driver) -> None:
    store, journal = driver.volume.store, journal_of(driver)
    fill(store, MAX - 10)
    with pytest.raises(NeedLogSpace) as caught:
        fill(store, 10)
    assert caught.value.credits == 10 + 1 + 2
    fill(store, 6)
    assert journal.running_blocks <= MAX
    check(journal)


def test_an_operation_larger_than_a_third_goes_alone(driver: Driver) -> None:
    fill(driver.volume.store, MAX + 20)
    check(journal_of(driver))
    with pytest.raises(NeedLogSpace):
        fill(driver.volume.store, 1)


def test_a_full_log_refuses_until_a_checkpoint(driver: Driver) -> None:
    store, journal = driver.volume.store, journal_of(driver)
    while journal.space > 60:
        fill(store, 40)
        driver.commit()
    with pytest.raises(NeedLogSpace):
        fill(store, 60)
    driver.checkpoint()
    fill(store, 60)
    check(journal)


def test_an_operation_without_new_blocks_always_joins(driver: Driver) -> None:
    store, journal = driver.volume.store, journal_of(driver)
    ino = make(driver, b"file")
    journal.granted_credits = journal.space
    plan = Plan(store)
    store.inodes.modify(plan, ino).uid = 7
    plan.apply()
    assert plan.tid == journal.running.tid


class TestGrants:
    def test_first_come_first_served(self, driver: Driver) -> None:
        journal = journal_of(driver)
        journal.used = journal.blocks - 50
        large, small = journal.ask(60), journal.ask(5)
        assert journal.serve() == []
        journal.used -= 40
        assert journal.serve() == [large, small]
        assert journal.granted_credits == 65
        journal.give_up(large)
        journal.give_up(small)
        journal.give_up(small)
        assert journal.granted_credits == 0

    def test_grants_are_given_in_order_of_arrival(self, driver: Driver) -> None:
        journal = journal_of(driver)
        first = journal.ask(20)
        with pytest.raises(NeedLogSpace):
            fill(driver.volume.store, 1)
        journal.give_up(first)
        assert not journal.grants
        fill(driver.volume.store, 1)

    def test_joining_uses_the_grant_up(self, driver: Driver) -> None:
        journal = journal_of(driver)
        grant = journal.ask(30)
        assert journal.serve() == [grant]
        fill(driver.volume.store, 10, grant=grant)
        assert (journal.granted_credits, grant.granted) == (0, False)
        check(journal)

    def test_granted_credits_are_not_for_others(self, driver: Driver) -> None:
        journal = journal_of(driver)
        journal.used = journal.blocks - 40
        grant = journal.ask(30)
        journal.serve()
        with pytest.raises(NeedLogSpace):
            fill(driver.volume.store, 10)
        fill(driver.volume.store, 25, grant=grant)

    def test_one_is_granted_only_when_it_fits_into_the_running_transaction(self, driver: Driver) -> None:
        journal = journal_of(driver)
        fill(driver.volume.store, MAX // 2)
        first, second = journal.ask(MAX // 2 + 10), journal.ask(1)
        assert journal.serve() == []
        driver.commit()
        assert journal.serve() == [first, second]

    def test_more_than_a_transaction_may_grow_to_is_granted_in_an_empty_one(self, driver: Driver) -> None:
        journal = journal_of(driver)
        fill(driver.volume.store, 10)
        grant = journal.ask(MAX + 10)
        assert journal.serve() == []
        driver.commit()
        assert journal.serve() == [grant]
        assert grant.credits == MAX + 10 <= journal.alone_blocks_max

    def test_the_runtime_is_told_to_commit_and_checkpoint(self, driver: Driver) -> None:
        journal = journal_of(driver)

        def wants() -> tuple[bool, bool]:
            return journal.wants_commit, journal.wants_checkpoint

        grant = journal.ask(1)
        assert wants() == (False, False), "there is nothing to commit"
        journal.give_up(grant)
        fill(driver.volume.store, 10)
        assert wants() == (False, False)
        grant = journal.ask(1)
        assert wants() == (True, False)
        driver.commit()
        assert wants() == (False, True)
        journal.give_up(grant)
        assert wants() == (False, False)
        fill(driver.volume.store, MAX // 2 + 10)
        assert wants() == (True, False)
        driver.commit()
        assert wants() == (False, True)


def test_a_block_freed_and_rewritten_later_is_not_revoked_any_more(driver: Driver) -> None:
    store, journal = driver.volume.store, journal_of(driver)
    made = fill(store, 2)
    driver.commit()
    free(store, made)
    assert journal.running.revokes == set(made)
    driver.commit()
    assert not set(made) & set(journal.pending_home)
    plan = Plan(store)
    assert plan.allocate(made[0], 1) == (made[0], 1)
    plan.create(made[0], XattrBlock(8, b"y", 0))
    plan.apply()
    assert made[0] in journal.running.images
    check(journal)


def test_pending_home_holds_the_newest_committed_image(driver: Driver) -> None:
    store, journal = driver.volume.store, journal_of(driver)
    address = store.inodes.root_address
    make(driver, b"a")
    driver.commit()
    first = journal.pending_home[address]
    make(driver, b"b")
    assert journal.pending_home[address] == first
    driver.commit()
    tid, obj = journal.pending_home[address]
    assert (tid, obj) == (first[0] + 1, store.cache.entries[address].obj)
    driver.checkpoint()
    assert not journal.pending_home


def test_blocks_are_held_until_they_are_at_home(driver: Driver) -> None:
    store = driver.volume.store
    (address,) = fill(store, 1)

    def holds() -> int:
        return store.cache.entries[address].holds

    assert holds() == 1
    plan = Plan(store)
    plan.modify(address, XattrBlock)
    plan.apply()
    assert holds() == 1
    driver.commit()
    assert holds() == 1
    plan = Plan(store)
    plan.modify(address, XattrBlock)
    plan.apply()
    assert holds() == 2
    driver.commit()
    assert holds() == 1
    driver.checkpoint()
    assert holds() == 0


def test_uncommitted_tells_times_from_data(driver: Driver) -> None:
    journal = journal_of(driver)
    ino = make_file(driver, b"file", b"data")
    tid = journal.running.tid
    assert journal.uncommitted(ino, data_only=True) == journal.uncommitted(ino, data_only=False) == tid
    assert not journal.uncommitted(77, data_only=False)
    driver.commit()
    assert not journal.uncommitted(ino, data_only=False)
    plan = Plan(driver.volume.store)
    driver.volume.store.inodes.modify(plan, ino).mtime = 5
    plan.apply()
    assert not journal.uncommitted(ino, data_only=True)
    assert journal.uncommitted(ino, data_only=False) == tid + 1
    job = commit(journal, 0)
    next(job)
    assert journal.uncommitted(ino, data_only=False) == tid + 1
    assert list(job)
    assert not journal.uncommitted(ino, data_only=False)


def test_random_traffic_keeps_the_invariants() -> None:
    driver = fresh_driver(journal_blocks=256)
    store, journal = driver.volume.store, journal_of(driver)
    chance = random.Random(4)
    made: list[list[int]] = []
    for _ in range(400):
        action = chance.choice(["fill", "fill", "free", "commit", "checkpoint", "ask", "serve"])
        try:
            if action == "fill":
                made.append(fill(store, chance.randrange(1, 30)))
            elif action == "free" and made:
                free(store, made[0])
                made.pop(0)
            elif action == "ask":
                journal.ask(chance.randrange(1, 40))
            elif action == "serve":
                for grant in journal.serve():
                    made.append(fill(store, max(1, grant.credits * 3 // 4), grant=grant))
            elif action == "commit":
                run_job(driver.device, commit(journal, 0))
            elif action == "checkpoint":
                run_job(driver.device, checkpoint(journal, 0))
        except NeedLogSpace:
            run_job(driver.device, commit(journal, 0))
            run_job(driver.device, checkpoint(journal, 0))
        check(journal)
        assert journal.running_blocks <= MAX
    assert journal.commits_total > 20


def test_the_statistics(driver: Driver) -> None:
    journal = journal_of(driver)
    make(driver, b"a")
    driver.commit()
    found = journal.statistics()
    assert (found.blocks, found.commits_total, found.checkpoints_total, found.aborted) == (256, 1, 0, "")
    assert found.used_blocks == found.blocks_logged_total > 0
    assert journal.committed_tid == found.tid - 1
    unlink(driver, b"a")
    driver.collect()
    driver.commit()
    driver.checkpoint()
    journal.abort(OSError("first"))
    journal.abort(OSError("second"))
    found = journal.statistics()
    assert (found.checkpoints_total, found.used_blocks, found.aborted) == (1, 0, "first")
    assert not journal.pending_home
    assert found.revokes_total > 0
    assert journal.uncommitted(INODE_FILE_INO, data_only=False) == 0


def test_a_wait_for_what_the_waiter_holds_never_ends(driver: Driver) -> None:
    journal = journal_of(driver)
    outer = journal.ask(MAX - 10)
    assert journal.serve() == [outer]
    inner = journal.ask(10, outer)
    assert journal.serve() == [inner]  # there is room for both
    journal.give_up(inner)
    inner = journal.ask(11, outer)
    assert journal.serve() == []
    assert journal.circular() is inner
    journal.refuse(inner)
    assert inner.refused
    assert journal.circular() is None
    journal.give_up(inner)
    journal.give_up(outer)
    assert journal.granted_credits == 0


def test_a_wait_for_log_space_that_another_operation_holds_ends(driver: Driver) -> None:
    journal = journal_of(driver)
    other = journal.ask(MAX - 20)
    outer = journal.ask(20)
    assert len(journal.serve()) == 2
    inner = journal.ask(20, outer)
    assert journal.serve() == []
    assert journal.circular() is None
    journal.give_up(other)
    assert journal.serve() == [inner]


def test_waiters_that_hold_what_each_other_wait_for_are_a_cycle_too(driver: Driver) -> None:
    journal = journal_of(driver)
    outers = [journal.ask(MAX // 2), journal.ask(MAX // 2)]
    assert journal.serve() == outers
    first = journal.ask(MAX // 2, outers[0])
    assert journal.circular() is None  # the other holder goes on, and gives its credits back
    second = journal.ask(2, outers[1])
    assert journal.serve() == []
    assert journal.circular() is second
    journal.refuse(second)
    assert journal.circular() is None
    journal.give_up(outers[1])
    assert journal.serve() == [first]


def test_a_waiter_behind_a_circular_wait_is_not_refused(driver: Driver) -> None:
    journal = journal_of(driver)
    outer = journal.ask(MAX - 10)
    journal.serve()
    before, inner, after = journal.ask(20), journal.ask(5, outer), journal.ask(5)
    assert journal.serve() == []
    assert journal.circular() is inner
    journal.refuse(inner)
    assert list(journal.grants) == [before, after]


def test_an_empty_transaction_is_no_way_around_what_others_were_granted(driver: Driver) -> None:
    store, journal = driver.volume.store, journal_of(driver)
    grant = journal.ask(MAX - 10)
    assert journal.serve() == [grant]
    assert journal.running.empty
    with pytest.raises(NeedLogSpace):
        fill(store, 20)
    fill(store, MAX - 14, grant=grant)
    assert journal.running_blocks <= journal.transaction_blocks_max
