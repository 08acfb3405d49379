from __future__ import annotations

import pytest
from bitarray import bitarray
from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.limits import RESERVE_BLOCKS_MAX, RESERVE_BLOCKS_MIN
from deferfs.store.needs import NeedFreeSpace
from deferfs.store.space import FreeSpace
from tests.examples import examples
from tests.unit.volumes import formats

FMT = formats()[0]
BITS = FMT.bits_per_bitmap
FREE = bitarray(BITS, endian="little")


def space_of(used: list[tuple[int, int]], groups: int = 2) -> FreeSpace:
    """All of it is free on disk, and what is `used` is withheld."""
    space = FreeSpace(FMT, groups * BITS, lambda group: FREE)
    bits = bitarray(groups * BITS, endian="little")
    for first, length in used:
        bits[first : first + length] = 1
    for group in range(groups):
        part = bits[group * BITS : (group + 1) * BITS]
        space.add_group(part)
        if part.any():
            space.withheld[group] = part
    return space


def taken(space: FreeSpace) -> set[int]:
    return {
        group * BITS + i for group in range(len(space.counts)) for i in space.unavailable(group).search(bitarray("1"))
    }


class TestHold:
    def test_hold_takes_blocks_at_the_goal(self) -> None:
        assert space_of([(0, 10)]).hold(500, 8) == (500, 8)

    def test_hold_takes_blocks_behind_a_goal_that_is_taken(self) -> None:
        assert space_of([(500, 4)]).hold(500, 8) == (504, 8)

    def test_hold_takes_the_longest_run_when_none_is_long_enough(self) -> None:
        used = [(0, 2 * BITS)]
        space = space_of(used)
        for first, length in ((10, 3), (20, 5), (30, 4)):
            space.let_go(first, length)
        assert space.hold(10, 100, reserve=True) == (20, 5)
        assert space.hold(10, 100, reserve=True) == (30, 4)

    def test_hold_goes_on_in_the_next_group(self) -> None:
        assert space_of([(0, BITS)]).hold(500, 8) == (BITS, 8)

    def test_hold_takes_blocks_before_the_goal_when_none_is_free_behind(self) -> None:
        assert space_of([(BITS - 10, BITS + 10)]).hold(BITS + 5, 8) == (0, 8)

    def test_hold_takes_blocks_before_the_goal_in_its_own_group(self) -> None:
        assert space_of([(500, 2 * BITS - 500)]).hold(600, 8) == (0, 8)

    def test_a_run_does_not_cross_into_the_next_group(self) -> None:
        space = space_of([(0, BITS - 3), (BITS + 4, BITS - 4)])
        assert space.hold(BITS - 3, 8, reserve=True) == (BITS, 4)

    def test_hold_without_a_goal_takes_runs_side_by_side(self) -> None:
        space = space_of([(0, 10)])
        assert [space.hold(0, 4)[0] for _ in range(3)] == [10, 14, 18]
        space.hold(1000, 4)
        assert space.hold(0, 4)[0] == 22

    def test_a_goal_outside_starts_at_the_beginning(self) -> None:
        assert space_of([(0, 10)]).hold(99 * BITS, 1) == (10, 1)

    def test_more_than_a_group_is_taken_piece_by_piece(self) -> None:
        space = space_of([(0, 10)])
        assert space.hold(0, 3 * BITS, reserve=True) == (BITS, BITS)
        assert space.hold(0, 2 * BITS, reserve=True) == (10, BITS - 10)
        with pytest.raises(NeedFreeSpace) as caught:
            space.hold(0, BITS, reserve=True)
        assert caught.value.blocks == BITS

    def test_the_last_free_block_is_found_behind_many_short_runs(self) -> None:
        space = space_of([(0, 2 * BITS)])
        singles = [(at, 1) for at in range(0, 200, 2)]
        space.release([*singles, (BITS - 5, 5)])
        found = [space.hold(0, 8, reserve=True) for _ in range(space.free_blocks - 4)]
        assert sorted(found) == [*singles, (BITS - 5, 5)]

    def test_the_reserve_is_for_operations_that_may_use_it(self) -> None:
        space = space_of([(0, 2 * BITS)])
        space.let_go(100, space.reserve + 1)
        assert space.hold(0, 9) == (100, 1)
        with pytest.raises(NeedFreeSpace):
            space.hold(0, 1)
        assert space.hold(0, 999, reserve=True) == (101, space.reserve)
        with pytest.raises(NeedFreeSpace):
            space.hold(0, 1, reserve=True)


@pytest.mark.parametrize(
    ("blocks", "reserve"),
    [(100, RESERVE_BLOCKS_MIN), (10_000, 100), (10_000_000, RESERVE_BLOCKS_MAX)],
)
def test_the_size_of_the_reserve(blocks: int, reserve: int) -> None:
    assert FreeSpace(FMT, blocks, lambda group: FREE).reserve == reserve


def test_release_makes_pending_blocks_available() -> None:
    space = space_of([(0, 100)])
    space.pending_blocks = 30
    before = space.free_blocks
    space.release([(0, 10), (50, 20)])
    assert (space.free_blocks, space.pending_blocks, space.epoch) == (before + 30, 0, 1)
    assert space.hold(1, 9) == (1, 9)
    space.release([])
    assert space.epoch == 1
    space.check()


class TestRunsAcrossGroups:
    def test_the_smallest_case(self) -> None:
        space = space_of([(0, 80)], groups=3)
        end = BITS - 20
        assert space.hold(end, 20) == (end, 20)
        assert space.hold(BITS, 30) == (BITS, 30)
        space.release([(end, 50)])
        space.check()
        assert list(space.counts) == [BITS - 80, BITS, BITS]
        assert space.hold(BITS, 30) == (BITS, 30), "the start of the second group is free again"

    def test_over_more_than_two(self) -> None:
        space = space_of([(0, 4 * BITS)], groups=4)
        space.release([(BITS - 1, 2 * BITS + 2)])
        space.check()
        assert list(space.counts) == [1, BITS, BITS, 1]

    def test_up_to_a_boundary(self) -> None:
        space = space_of([(0, 2 * BITS)])
        space.release([(BITS - 3, 3)])
        space.check()
        assert list(space.counts) == [3, 0]


@pytest.mark.parametrize("wrong", ["a group", "the sum", "the hint"])
def test_the_check_sees_a_wrong_count(wrong: str) -> None:
    space = space_of([(0, 10)])
    space.check()
    if wrong == "a group":
        space.withheld[0][20] = 1
    elif wrong == "the sum":
        space.free_blocks += 1
    else:
        space.hints[1] = 1
    with pytest.raises(AssertionError):
        space.check()


@settings(max_examples=examples(150))
@given(
    used=st.lists(st.tuples(st.integers(0, 2 * BITS), st.integers(1, BITS)), max_size=6),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 2 * BITS + 5), st.integers(1, 300)), max_size=40),
)
def test_the_index_is_a_set_of_blocks(used: list[tuple[int, int]], steps: list[tuple[bool, int, int]]) -> None:
    space = space_of(used)
    model = taken(space)
    held: list[tuple[int, int]] = []
    for takes, goal, want in steps:
        if takes:
            try:
                first, length = space.hold(goal, want, reserve=True)
            except NeedFreeSpace:
                assert len(model) == 2 * BITS
                continue
            assert 0 < length <= want
            run = set(range(first, first + length))
            assert not run & model
            model |= run
            held.append((first, length))
        elif held:
            held.sort()
            at = goal % len(held)
            first, length = held.pop(at)
            while at < len(held) and held[at][0] == first + length:
                length += held.pop(at)[1]  # as an extent does, on both sides of a boundary
            space.let_go(first, length)
            model -= set(range(first, first + length))
        space.check()
    assert taken(space) == model
