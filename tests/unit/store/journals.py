"""Filling the log, and looking at what it holds."""

from __future__ import annotations

from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.journal import Journal
from deferfs.store.needs import NeedLogSpace
from deferfs.store.plan import Plan
from deferfs.store.store import Store
from deferfs.store.transaction import Grant


def fill(store: Store, count: int, *, grant: Grant | None = None) -> list[int]:
    """One plan that creates `count` metadata blocks (and changes a bitmap); their addresses."""
    plan = Plan(store, reserve=True, grant=grant)
    first, length = plan.allocate(0, count)
    assert length == count
    try:
        for address in range(first, first + count):
            plan.create(address, XattrBlock(8, b"x", 0))
        plan.apply()
    except NeedLogSpace:
        plan.drop()
        raise
    return list(range(first, first + count))


def free(store: Store, addresses: list[int]) -> None:
    plan = Plan(store, reserve=True)
    for address in addresses:
        plan.free_metadata(address)
    plan.apply()


def check(journal: Journal) -> None:
    committing = journal.committing.log_blocks if journal.committing is not None else 0
    assert journal.space >= 0
    assert journal.used + committing + journal.running_blocks + journal.granted_credits <= journal.blocks
    assert journal.used == sum(t.log_blocks for t in journal.committed)
    assert (journal.tail + journal.used) % journal.blocks == journal.head
    cache = journal.store.cache
    for address, obj in journal.running.images.items():
        assert cache.entries[address].obj is obj
        assert cache.entries[address].holds >= 1
    assert not set(journal.running.images) & journal.running.revokes
