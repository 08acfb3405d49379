from __future__ import annotations

import pytest

from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import TRANSITIONS, State


@pytest.mark.parametrize("new", list(State))
@pytest.mark.parametrize("old", list(State))
def test_moves_follow_the_table(old: State, new: State) -> None:
    inode = InCoreInode(8, 1)
    inode.state = old
    inode.lookups = 1 if new is State.LIVE else 0
    if new in TRANSITIONS[old]:
        inode.move(new)
        assert inode.state is new
    else:
        with pytest.raises(AssertionError, match=f"inode 8: {old.name} -> {new.name}"):
            inode.move(new)
        assert inode.state is old


def test_live_needs_an_active_reference_and_freed_none() -> None:
    inode = InCoreInode(8, 1)
    with pytest.raises(AssertionError, match="needs an active"):
        inode.move(State.LIVE)
    inode.state, inode.active_tokens = State.RECLAIMABLE, 1
    with pytest.raises(AssertionError, match="freed while active"):
        inode.move(State.FREED)


@pytest.mark.parametrize(
    ("field", "value"), [("orphan", True), ("preallocated", True), ("lazy_atime", 5), ("lookups", 0)]
)
def test_an_inode_that_owes_needs_inactivation(field: str, value: int) -> None:
    inode = InCoreInode(8, 1)
    setattr(inode, field, value)
    assert inode.needs_inactivation == bool(value)


class TestActiveReference:
    def test_an_active_reference_keeps_the_inode_live_until_it_is_released(self) -> None:
        cache = InodeCache()
        first, second = cache.hold(8, 1), cache.hold(8, 1)
        inode = first.inode
        assert (inode.state, inode.active, inode.active_tokens) == (State.LIVE, 2, 2)
        states = []
        for reference in (first, second):
            assert reference.release() is None
            states.append(inode.state)
        assert states == [State.LIVE, State.IDLE]

    def test_an_active_reference_is_released_once(self) -> None:
        cache = InodeCache()
        reference = cache.hold(8, 1)
        cache.hold(8, 1)
        reference.release()
        with pytest.raises(AssertionError, match="released twice"):
            reference.release()
        assert cache.table[8].active == 1

    def test_releasing_the_last_one_of_an_orphan_hands_it_over(self) -> None:
        cache = InodeCache()
        reference = cache.hold(8, 1)
        assert cache.orphaned(8, 1, 10) is None
        assert reference.release() is reference.inode
        assert reference.inode.state is State.NEED_INACTIVE

    def test_lookups_and_tokens_are_one_count(self) -> None:
        cache = InodeCache()
        cache.lookup(8, 1, 3)
        reference = cache.hold(8, 1)
        inode = reference.inode
        assert inode.active == 4
        states = []
        cache.forget(8, 3)
        states.append(inode.state)
        reference.release()
        states.append(inode.state)
        assert states == [State.LIVE, State.IDLE]


class TestPassiveReference:
    def test_a_passive_reference_tells_number_generation_and_state(self) -> None:
        cache = InodeCache()
        inode = cache.lookup(8, 3)
        reference = cache.passive(inode)
        assert (reference.ino, reference.generation, reference.state) == (8, 3, State.LIVE)
        assert inode.passive == 3
        reference.release()
        assert inode.passive == 2
        with pytest.raises(AssertionError, match="released twice"):
            reference.release()

    def test_a_passive_reference_outlives_the_inode(self) -> None:
        cache = InodeCache()
        reference = cache.passive(cache.lookup(8, 3))
        cache.forget(8, 1)
        cache.shrink(1 << 30, 64)
        assert reference.state is State.FREED
        assert reference.try_activate() is None
        reference.release()

    @pytest.mark.parametrize(
        ("state", "orphan", "possible"),
        [
            (State.LIVE, False, True),
            (State.LIVE, True, True),
            (State.IDLE, False, True),
            (State.NEED_INACTIVE, False, True),
            (State.NEED_INACTIVE, True, False),
            (State.QUEUED, False, True),
            (State.QUEUED, True, False),
            (State.INACTIVATING, False, True),
            (State.INACTIVATING, True, False),
            (State.QUARANTINED, False, True),
            (State.QUARANTINED, True, False),
            (State.RECLAIMABLE, False, False),
            (State.FREED, False, False),
        ],
    )
    def test_becoming_active(self, state: State, orphan: bool, possible: bool) -> None:
        cache = InodeCache()
        inode = cache.lookup(8, 3)
        reference = cache.passive(inode)
        if state is not State.LIVE:
            inode.lookups = 0
            inode.state = state
        if state is State.IDLE:
            cache.lru[8] = inode
        inode.orphan = orphan
        active = reference.try_activate()
        assert (active is not None) == possible
        assert (inode.state is State.LIVE) == possible
        if active is not None:
            assert active.inode is inode
            assert inode.active_tokens == 1


def test_the_text_of_an_inode_has_its_counts() -> None:
    inode = InodeCache().lookup(8, 1, 2)
    assert repr(inode) == "<inode 8 LIVE active=2 passive=2>"
