from __future__ import annotations

import pytest

from deferfs.errors import CorruptionError
from deferfs.limits import SHRINK_LOOKS_MAX
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.cache import BlockCache
from tests.unit.volumes import formats

FMT = formats()[0]
COST = 300


def block(owner: int = 1) -> XattrBlock:
    """An object that costs 300 bytes."""
    found = XattrBlock(owner, bytes(COST - 200), 0)
    assert found.cost(FMT) == COST
    return found


def cache_of(count: int) -> BlockCache:
    cache = BlockCache(FMT)
    for address in range(1, count + 1):
        cache.publish(address, block())
    return cache


def cool(cache: BlockCache) -> None:
    for entry in cache.entries.values():
        entry.hot = False


def test_publishing_replaces_and_counts_the_bytes() -> None:
    cache = cache_of(2)
    assert cache.bytes == 2 * COST
    old = cache.entries[1]
    old.hot = False
    small = XattrBlock(2, b"", 0)
    assert cache.publish(1, small) is old
    assert (old.obj, old.hot) == (small, True)
    assert cache.bytes == COST + 200


def test_supplying_decodes_once_and_keeps_what_is_newer() -> None:
    cache = BlockCache(FMT)
    image = XattrBlock(5, b"old", 0).encode(FMT, 9)
    cache.supply(9, XattrBlock, image)
    found = cache.entries[9].obj
    assert isinstance(found, XattrBlock)
    assert found.payload == b"old"
    newer = block()
    cache.publish(9, newer)
    cache.supply(9, XattrBlock, image)
    assert cache.entries[9].obj is newer
    with pytest.raises(CorruptionError):
        cache.supply(8, XattrBlock, image)
    assert 8 not in cache.entries


def test_dropping_forgets() -> None:
    cache = cache_of(2)
    cache.drop(1)
    cache.drop(77)
    assert list(cache.entries) == [2]
    assert cache.bytes == COST


def test_shrinking_takes_the_coldest_first_and_no_more_than_wanted() -> None:
    cache = cache_of(5)
    cool(cache)
    cache.entries[2].hot = True
    assert cache.shrink(2 * COST) == 2 * COST
    assert sorted(cache.entries) == [2, 4, 5]
    assert cache.bytes == 3 * COST
    assert cache.evicted_total == 2


def test_a_hot_block_has_a_second_chance_only() -> None:
    cache = cache_of(3)
    assert cache.shrink(1) == COST
    assert not any(entry.hot for entry in cache.entries.values())
    assert cache.shrink(1 << 30) == 2 * COST
    assert (len(cache.entries), cache.bytes) == (0, 0)
    assert cache.shrink(1) == 0


def test_the_shrinker_does_not_look_at_what_is_held() -> None:
    """Else each small want of memory would walk over all that is dirty."""
    cache = cache_of(SHRINK_LOOKS_MAX + 1)
    cool(cache)
    for address in range(1, SHRINK_LOOKS_MAX + 1):
        cache.hold(address)
    assert cache.shrink(1) == COST
    assert len(cache.entries) == SHRINK_LOOKS_MAX


def test_a_block_that_is_let_go_comes_last_and_earlier_uses_do_not_count() -> None:
    cache = cache_of(3)
    cool(cache)
    cache.hold(1)
    cache.entries[1].hot = True
    cache.let_go(1)
    assert cache.shrink(2 * COST) == 2 * COST
    assert list(cache.entries) == [1]
    assert cache.shrink(1) == COST


def test_a_block_that_was_cooled_goes_first_unless_it_is_used_before_it_is_let_go() -> None:
    for used in (False, True):
        cache = cache_of(3)
        cool(cache)
        cache.hold(3)
        cache.entries[3].hot = True
        cache.cool(3)
        cache.cool(77)
        assert 3 not in cache.evictable
        cache.entries[3].hot = used
        cache.let_go(3)
        assert cache.shrink(1) == COST
        assert list(cache.entries) == ([2, 3] if used else [1, 2])


def test_a_held_block_stays_until_it_is_let_go_as_often() -> None:
    cache = cache_of(2)
    cache.hold(1)
    cache.hold(1)
    assert cache.shrink(1 << 30) == COST
    cache.let_go(1)
    assert cache.shrink(1 << 30) == 0
    cache.let_go(1)
    cache.let_go(1)
    cache.let_go(77)
    assert cache.entries[1].holds == 0
    assert cache.shrink(1 << 30) == COST
