from __future__ import annotations

import random
from bisect import bisect_left, bisect_right

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.node import DirectoryNode, ExtentNode, Node
from deferfs.store.btree import BTree
from deferfs.store.plan import Plan
from tests.examples import examples
from tests.unit.store.trees import walk
from tests.unit.volumes import BLOCK_SIZES, fresh_store

OWNER = 77
KINDS: list[type[Node]] = [ExtentNode, DirectoryNode]
Phase = tuple[str, str, int]
"""(insert or delete, the order in which keys come, how many)."""

phases = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete"]),
        st.sampled_from(["ascending", "descending", "random", "clustered", "below"]),
        st.integers(1, 250),
    ),
    min_size=1,
    max_size=8,
)


class Pair:
    """A tree beside the dict that it must equal."""

    def __init__(self, block_size: int, kind: type[Node], seed: int = 0) -> None:
        self.store = fresh_store(block_size=block_size)
        self.free_before = self.store.space.free_blocks
        self.plan = Plan(self.store, reserve=True)
        self.kind = kind
        self.tree = BTree.build(self.plan, kind, OWNER, [], 0)
        self.model: dict[int, bytes] = {}
        self.random = random.Random(seed)

    def value(self) -> bytes:
        if self.kind is ExtentNode:
            return self.random.randbytes(16)
        return self.random.randbytes(self.random.choice([10, 20, 60, 264]))

    def insert(self, key: int) -> None:
        if key not in self.model:
            self.model[key] = self.value()
            self.tree.insert(key, self.model[key])

    def delete(self, key: int) -> None:
        del self.model[key]
        self.tree.delete(key)

    def run(self, phase: Phase) -> None:
        action, order, count = phase
        if action == "insert":
            for key in self.new_keys(order, count):
                self.insert(key)
        else:
            for key in self.old_keys(order, count):
                self.delete(key)

    def new_keys(self, order: str, count: int) -> list[int]:
        if order == "ascending":
            start = max(self.model, default=0) + 1
            return list(range(start, start + count))
        if order == "descending":
            start = min(self.model, default=1 << 20) - 1
            return list(range(start, max(-1, start - count), -1))
        if order == "below":
            start = min(self.model, default=1 << 20)
            return [self.random.randrange(max(0, start - 2 * count), start + 1) for _ in range(count)]
        span = 1 << 20 if order == "random" else 2 * count
        return [self.random.randrange(span) for _ in range(count)]

    def old_keys(self, order: str, count: int) -> list[int]:
        keys = sorted(self.model)
        if order == "descending":
            keys.reverse()
        elif order == "random":
            self.random.shuffle(keys)
        elif order == "clustered":
            return keys[len(keys) // 3 :][:count]
        return keys[:count]

    def check(self) -> None:
        entries, nodes = walk(self.plan, self.kind, self.tree.root, OWNER)
        assert entries == sorted(self.model.items())
        assert nodes == self.tree.blocks

    def check_looks(self) -> None:
        keys = sorted(self.model)
        for probe in {0, 1, *(self.random.randrange(1 << 20) for _ in range(10)), *keys[:3], *keys[-3:], 2**63 - 1}:
            assert self.tree.get(probe) == self.model.get(probe)
            at = bisect_right(keys, probe)
            assert self.tree.floor(probe) == ((keys[at - 1], self.model[keys[at - 1]]) if at else None)
            at = bisect_left(keys, probe)
            assert self.tree.ceiling(probe) == ((keys[at], self.model[keys[at]]) if at < len(keys) else None)

    def finish(self) -> None:
        """Empty the tree: all its nodes must be free again."""
        for key in self.old_keys("random", len(self.model)):
            self.delete(key)
        self.check()
        assert self.tree.blocks == 1
        self.tree.free()
        assert self.tree.blocks == 0
        taken = {b for first, length in self.plan.held for b in range(first, first + length)}
        assert taken == set(self.plan.revoked)
        self.plan.drop()
        assert self.store.space.free_blocks == self.free_before


@settings(max_examples=examples(60))
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32), steps=phases)
@example(
    # the leftmost inner node goes away; then keys arrive below all that is left
    kind=DirectoryNode,
    seed=1,
    steps=[("insert", "random", 250)] * 4 + [("delete", "ascending", 250)] * 3 + [("insert", "below", 250)] * 2,
)
def test_a_tree_is_a_sorted_map(kind: type[Node], seed: int, steps: list[Phase]) -> None:
    pair = Pair(1024, kind, seed)
    for step in steps:
        pair.run(step)
        pair.check()
    pair.check_looks()
    pair.finish()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_a_tree_grows_and_shrinks_in_every_block_size(kind: type[Node], block_size: int, order: str) -> None:
    pair = Pair(block_size, kind, 5)
    count = {1024: 1500, 4096: 2500, 65536: 4000}[block_size]
    pair.run(("insert", order, count))
    pair.check()
    assert pair.plan.get(pair.tree.root, kind).level >= 1
    pair.run(("delete", order, count * 2 // 3))
    pair.check()
    pair.run(("insert", "clustered", count // 3))
    pair.check()
    pair.check_looks()
    pair.finish()


def test_every_single_step_keeps_the_invariants() -> None:
    pair = Pair(1024, DirectoryNode, 3)
    for key in pair.new_keys("random", 150):
        pair.insert(key)
        pair.check()
    for key in pair.old_keys("ascending", 75) + pair.old_keys("random", 1000):
        if key in pair.model:
            pair.delete(key)
            pair.check()


def test_keys_added_in_order_fill_their_nodes() -> None:
    pair = Pair(1024, ExtentNode)
    for key in range(1000):
        pair.insert(key)
    per_leaf = (1024 - 32) // 24
    assert pair.tree.blocks <= 1000 // per_leaf + 3


def test_a_tree_that_lost_most_of_its_entries_gives_its_nodes_back() -> None:
    pair = Pair(1024, ExtentNode)
    for key in range(2000):
        pair.insert(key)
    for key in range(2000):
        if key % 20:
            pair.delete(key)
    pair.check()
    assert pair.tree.blocks <= 100 * 24 * 5 // 1024 + 3


def test_replace_keeps_key_and_length() -> None:
    pair = Pair(1024, DirectoryNode)
    for key in range(100):
        pair.insert(key)
    pair.model[50] = bytes(len(pair.model[50]))
    pair.tree.replace(50, pair.model[50])
    pair.check()
    with pytest.raises(AssertionError):
        pair.tree.replace(50, b"longer" * 100)
    with pytest.raises(CorruptionError, match="is there already"):
        pair.tree.insert(50, b"again")


@pytest.mark.parametrize("key", [0, 5])
def test_a_damaged_tree_never_causes_an_endless_search(key: int) -> None:
    store = fresh_store()
    plan = Plan(store, reserve=True)
    tree = BTree.build(plan, ExtentNode, OWNER, [], 0)
    loop = ExtentNode(OWNER, 1)
    loop.insert_child(0, 0, tree.root)
    plan.create(tree.root, loop)
    for look in (tree.get, tree.floor, tree.ceiling, tree.delete):
        with pytest.raises(CorruptionError):
            look(key)
