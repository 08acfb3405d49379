from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.inode import FORM_EXTENTS, Inode
from deferfs.ondisk.node import EXTENT
from deferfs.store import extents
from deferfs.store.extents import Mapping
from deferfs.store.fork import extent_fork
from deferfs.store.plan import Plan
from tests.examples import examples
from tests.unit.store.trees import walk
from tests.unit.volumes import fresh_store

SPAN = 300
Block = tuple[int, bool]
"""(physical block, unwritten)."""


class Mapped:
    """The extents of an inode beside a dict of single blocks."""

    def __init__(self) -> None:
        self.store = fresh_store()
        self.plan = Plan(self.store, reserve=True)
        self.inode = Inode(77, 0o100644)
        self.inode.set_entries(FORM_EXTENTS, ())
        self.model: dict[int, Block] = {}

    def insert(self, logical: int, physical: int, length: int, unwritten: bool) -> None:
        """Map the holes of the range."""
        for hole in extents.map_range(self.plan, self.inode, logical, length):
            if not hole.physical:
                start = physical + hole.logical - logical
                extents.insert(self.plan, self.inode, Mapping(hole.logical, start, hole.length, unwritten))
        for i in range(length):
            self.model.setdefault(logical + i, (physical + i, unwritten))

    def remove(self, start: int, end: int) -> None:
        pieces = extents.remove(self.plan, self.inode, start, end)
        found = {p.logical + i: (p.physical + i, p.unwritten) for p in pieces for i in range(p.length)}
        assert found == {at: self.model.pop(at) for at in range(start, end) if at in self.model}

    def mark_written(self, start: int, length: int) -> None:
        extents.mark_written(self.plan, self.inode, start, length)
        for at in range(start, start + length):
            if at in self.model:
                self.model[at] = (self.model[at][0], False)

    def check(self) -> None:
        fork = extent_fork(self.plan, self.inode)
        entries = [(key, *EXTENT.unpack(value)) for key, value in fork.iterate(0)]
        found = {
            key + i: (physical + i, bool(flags)) for key, physical, length, flags in entries for i in range(length)
        }
        assert found == self.model
        assert sum(length for _, _, length, _ in entries) == len(self.model), "extents overlap"
        for (key, physical, length, flags), (key2, physical2, _, flags2) in pairwise(entries):
            assert (key + length, physical + length, flags) != (key2, physical2, flags2), "neighbours not joined"
        nodes = walk(self.plan, fork.kind, self.inode.root, 77)[1] if fork.is_tree else 0
        assert self.inode.blocks == len(self.model) + nodes

    def check_map_range(self, start: int, count: int) -> None:
        mappings = extents.map_range(self.plan, self.inode, start, count)
        at = start
        for mapping in mappings:
            assert mapping.logical == at
            assert mapping.length > 0
            for i in range(mapping.length):
                expected = self.model.get(at + i, (0, False))
                assert (mapping.physical + i if mapping.physical else 0, mapping.unwritten) == expected
            at = mapping.end
        assert at == start + count


steps = st.tuples(
    st.sampled_from(["insert", "insert", "remove", "mark_written"]),
    st.integers(0, SPAN),
    st.integers(1, 40),
    st.integers(0, 3),
    st.booleans(),
)


@settings(max_examples=examples(150))
@given(st.lists(steps, max_size=60), st.integers(0, SPAN), st.integers(1, SPAN))
def test_extents_are_a_map_of_blocks(
    actions: list[tuple[str, int, int, int, bool]], probe: int, probe_length: int
) -> None:
    mapped = Mapped()
    for action, start, length, area, unwritten in actions:
        if action == "insert":
            mapped.insert(start, 1000 * (area + 1) + start, length, unwritten)
        elif action == "remove":
            mapped.remove(start, start + length)
        else:
            mapped.mark_written(start, length)
        mapped.check()
    mapped.check_map_range(probe, probe_length)
    last = extents.last_mapping(mapped.plan, mapped.inode)
    assert (last.end - 1 if last else None) == max(mapped.model, default=None)


def test_many_single_blocks_become_a_tree_and_one_extent_again() -> None:
    mapped = Mapped()
    for at in [*range(0, 400, 2), *range(1, 400, 2)]:
        mapped.insert(at, 5000 + at, 1, False)
    mapped.check()
    assert mapped.inode.entries == ((0, EXTENT.pack(5000, 400, 0)),)


def test_extents_join_up_to_the_length_field_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extents, "EXTENT_BLOCKS_MAX", 8)
    mapped = Mapped()
    for at in (0, 4, 8, 12):
        mapped.insert(at, 100 + at, 4, False)
    assert [EXTENT.unpack(value)[1] for _, value in mapped.inode.entries] == [8, 8]


@pytest.mark.parametrize("value", [EXTENT.pack(0, 1, 0), EXTENT.pack(1, 0, 0)])
def test_a_damaged_extent_is_refused(value: bytes) -> None:
    mapped = Mapped()
    mapped.inode.set_entries(FORM_EXTENTS, ((0, value),))
    with pytest.raises(CorruptionError):
        extents.map_range(mapped.plan, mapped.inode, 0, 1)


def test_overlapping_extents_are_refused() -> None:
    mapped = Mapped()
    mapped.insert(10, 100, 10, False)
    for new in (Mapping(5, 200, 6, False), Mapping(19, 200, 1, False), Mapping(12, 200, 1, True)):
        with pytest.raises(CorruptionError, match="overlap"):
            extents.insert(mapped.plan, mapped.inode, new)


def test_free_from_works_backwards_and_stops_after_so_many_extents() -> None:
    mapped = Mapped()
    free_before = mapped.store.space.free_blocks
    for at in range(0, 100, 10):
        first, length = mapped.plan.allocate(0, 5)
        assert length == 5
        extents.insert(mapped.plan, mapped.inode, Mapping(at, first, 5, False))
        mapped.plan.allocate(0, 1)
    ends = []
    done = False
    while not done:
        done = extents.free_from(mapped.plan, mapped.inode, 32, 2)
        last = extents.last_mapping(mapped.plan, mapped.inode)
        ends.append(last.end if last else 0)
    assert ends == [75, 55, 35, 32]
    assert sum(length for _, length in mapped.plan.freed) == 33
    assert extents.free_from(mapped.plan, mapped.inode, 32, 1)
    mapped.plan.drop()
    assert mapped.store.space.free_blocks == free_before
