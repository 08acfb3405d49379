from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.directory import pack_entry
from deferfs.ondisk.inode import (
    FORM_DIRECTORY_TREE,
    FORM_ENTRIES,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    INLINE_BYTES,
    Inode,
)
from deferfs.ondisk.node import EXTENT
from deferfs.store.fork import Fork, directory_fork, extent_fork
from deferfs.store.plan import Plan
from tests.examples import examples
from tests.unit.store.trees import walk
from tests.unit.volumes import fresh_store


class Forked:
    """A fork of an inode that is in no table, beside the dict that it must equal."""

    def __init__(self, form: int, *, xattr_bytes: int = 0) -> None:
        self.store = fresh_store()
        self.plan = Plan(self.store, reserve=True)
        self.inode = Inode(77, 0o100644)
        self.inode.xattrs = bytes(xattr_bytes)
        self.inode.set_entries(form, ())
        self.fork: Fork = (extent_fork if form == FORM_EXTENTS else directory_fork)(self.plan, self.inode)
        self.model: dict[int, bytes] = {}

    def insert(self, key: int, value: bytes) -> None:
        self.fork.insert(key, value)
        self.model[key] = value

    def delete(self, key: int) -> None:
        self.fork.delete(key)
        del self.model[key]

    def check(self) -> None:
        inode = self.inode
        assert list(self.fork.iterate(0)) == sorted(self.model.items())
        assert inode.data_bytes() + len(inode.xattrs) <= INLINE_BYTES
        inode.encode(self.store.fmt, 5)
        if self.fork.is_tree:
            _, nodes = walk(self.plan, self.fork.kind, inode.root, inode.ino)
            assert inode.blocks == nodes
        else:
            assert inode.blocks == 0
            assert list(inode.entries) == sorted(self.model.items())


def extent(key: int) -> bytes:
    return EXTENT.pack(key + 1, 1, 0)


def test_extents_are_inline_until_they_do_not_fit() -> None:
    forked = Forked(FORM_EXTENTS)
    for key in range(16):
        forked.insert(2 * key, extent(key))
        forked.check()
        assert forked.inode.form == FORM_EXTENTS
    forked.insert(99, extent(99))
    assert forked.inode.form == FORM_EXTENT_TREE
    forked.check()


def test_a_shrunken_tree_goes_inline_at_half_the_room() -> None:
    forked = Forked(FORM_EXTENTS)
    for key in range(17):
        forked.insert(key, extent(key))
    for key in range(16, 8, -1):
        assert forked.inode.form == FORM_EXTENT_TREE
        forked.delete(key)
    assert forked.inode.form == FORM_EXTENT_TREE
    forked.delete(8)
    assert forked.inode.form == FORM_EXTENTS
    assert forked.inode.root == 0
    forked.check()


@pytest.mark.parametrize(("form", "tree"), [(FORM_EXTENTS, FORM_EXTENT_TREE), (FORM_ENTRIES, FORM_DIRECTORY_TREE)])
def test_xattrs_leave_less_room(form: int, tree: int) -> None:
    forked = Forked(form, xattr_bytes=INLINE_BYTES - 30)
    forked.insert(1, pack_entry(8, 8, b"x" * 7))
    assert forked.inode.form == form
    forked.insert(2, pack_entry(8, 8, b"x" * 7))
    assert forked.inode.form == tree
    forked.check()


def test_an_entry_can_be_found_in_both_forms() -> None:
    forked = Forked(FORM_EXTENTS)
    for count in range(40):
        forked.insert(10 * count + 10, extent(count))
        for probe in (0, 5, 10, 15, 10 * count + 10, 10 * count + 15):
            below = [k for k in forked.model if k <= probe]
            above = [k for k in forked.model if k >= probe]
            assert forked.fork.get(probe) == forked.model.get(probe)
            assert forked.fork.floor(probe) == ((max(below), forked.model[max(below)]) if below else None)
            assert forked.fork.ceiling(probe) == ((min(above), forked.model[min(above)]) if above else None)
            assert [k for k, _ in forked.fork.iterate(probe)] == above


@pytest.mark.parametrize("count", [3, 40])
def test_replace_changes_the_value_only(count: int) -> None:
    forked = Forked(FORM_EXTENTS)
    for key in range(count):
        forked.insert(key, extent(key))
    forked.fork.replace(1, extent(500))
    forked.model[1] = extent(500)
    forked.check()


def test_blocks_stay_exact_when_the_last_nodes_go_together() -> None:
    """A delete that empties a leaf, drops the root above it and moves the rest inline, all at once."""
    forked = Forked(FORM_ENTRIES)
    big, small = b"B" * 240, b"s" * 20
    for key in (10, 20, 30):
        forked.insert(key, big)
    for key in (1, 2, 3, 4):
        forked.insert(key, small)
    for key in (40, 50, 60):
        forked.insert(key, big)
    for key in (10, 20, 30, 40, 50, 60):
        forked.delete(key)
        forked.check()


@settings(max_examples=examples(80))
@given(
    form=st.sampled_from([FORM_EXTENTS, FORM_ENTRIES]),
    seed=st.integers(0, 2**32),
    xattr_bytes=st.sampled_from([0, 100, 376]),
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=12),
)
def test_a_fork_is_a_sorted_map(form: int, seed: int, xattr_bytes: int, steps: list[tuple[bool, int]]) -> None:
    forked = Forked(form, xattr_bytes=xattr_bytes)
    chance = random.Random(seed)
    for inserts, count in [*steps, (False, 1 << 20)]:
        keys = [chance.randrange(1 << 20) for _ in range(count)] if inserts else sorted(forked.model)
        if not inserts and chance.random() < 0.7:
            chance.shuffle(keys)
        for key in keys[:count]:
            if not inserts:
                forked.delete(key)
            elif key not in forked.model:
                size = 16 if form == FORM_EXTENTS else chance.choice([10, 20, 264])
                forked.insert(key, chance.randbytes(size))
            forked.check()
    assert forked.inode.form == form
    freed = set(forked.plan.revoked)
    assert {first for first, _ in forked.plan.held} == freed


def test_leaves_that_lead_back_end_the_walk() -> None:
    forked = Forked(FORM_ENTRIES)
    for key in range(1, 400):
        forked.insert(key << 8, pack_entry(key, 8, b"name %d" % key))
    root = forked.plan.modify(forked.inode.root, forked.fork.kind)
    root.children[2] = root.children[0]
    with pytest.raises(CorruptionError):
        list(forked.fork.iterate(0))
