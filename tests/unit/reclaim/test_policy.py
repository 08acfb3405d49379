from __future__ import annotations

import pytest

from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.policy import POLICIES, make_policy
from deferfs.reclaim.states import State
from tests.unit.volumes import fresh_driver, make, record, unlink


def due(gc: InodeGc, *inos: int) -> list[InCoreInode]:
    return [found for ino in inos if (found := gc.cache.orphaned(ino, 1, 1)) is not None]


@pytest.fixture
def gc() -> InodeGc:
    return InodeGc(InodeCache(), lambda: 1)


def test_deferred_queues_and_leaves_nothing_to_wait_for(gc: InodeGc) -> None:
    inodes = due(gc, 8, 9)
    assert make_policy("deferred", gc).dispose(inodes) == []
    assert gc.queued == 2
    assert {inode.state for inode in inodes} == {State.QUEUED}


def test_inline_leaves_everything_to_the_caller(gc: InodeGc) -> None:
    inodes = due(gc, 8, 9)
    assert make_policy("inline", gc).dispose(inodes) == inodes
    assert gc.queued == 0
    assert {inode.state for inode in inodes} == {State.NEED_INACTIVE}


def test_policies_are_known_by_name(gc: InodeGc) -> None:
    assert {name: kind.name for name, kind in POLICIES.items()} == {"inline": "inline", "deferred": "deferred"}
    with pytest.raises(ValueError, match="evict must be one of deferred, inline, not 'lazy'"):
        make_policy("lazy", gc)


@pytest.mark.parametrize("evict", ["inline", "deferred"])
def test_inline_alone_writes_when_the_kernel_forgets(evict: str) -> None:
    driver = fresh_driver(evict=evict)
    ino = make(driver, b"file")
    driver.volume.lookup_count(record(driver, ino))
    unlink(driver, b"file")
    driver.commit()
    assert driver.volume.store.journal.running.empty
    driver.forget(ino, 1)
    assert driver.volume.store.journal.running.empty == (evict == "deferred")
    assert driver.volume.store.orphans.count == (1 if evict == "deferred" else 0)
