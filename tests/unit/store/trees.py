"""A walk over a whole B+tree that asserts what the docstring of `store.btree` promises."""

from __future__ import annotations

from itertools import pairwise

from deferfs.ondisk.format import HEADER_BYTES
from deferfs.ondisk.node import Node
from deferfs.store.plan import Plan

Entry = tuple[int, bytes]
_NO_BOUND = 1 << 64


def walk(plan: Plan, kind: type[Node], root: int, owner: int) -> tuple[list[Entry], int]:
    """(entries in order, number of nodes) of the tree; AssertionError where an invariant is broken."""
    entries: list[Entry] = []
    nodes = _walk(plan, kind, (root, plan.get(root, kind).level), (0, _NO_BOUND), owner, entries, is_root=True)
    assert all(left[0] < right[0] for left, right in pairwise(entries))
    return entries, nodes


def _walk(
    plan: Plan,
    kind: type[Node],
    place: tuple[int, int],
    bounds: tuple[int, int],
    owner: int,
    entries: list[Entry],
    *,
    is_root: bool = False,
) -> int:
    address, level = place
    low, high = bounds
    node = plan.get(address, kind)
    keys = list(node.keys)
    assert node.level == level
    assert node.owner == owner
    assert keys or is_root, "an empty node"
    assert all(left < right for left, right in pairwise(keys)), f"keys do not ascend: {keys}"
    assert all(low <= key < high for key in keys), f"keys {keys} out of [{low}, {high})"
    assert HEADER_BYTES + sum(map(node.entry_bytes, range(len(keys)))) == node.used <= plan.store.fmt.block_size
    if not level:
        assert len(node.values) == len(keys)
        entries.extend(zip(keys, node.values, strict=True))
        return 1
    assert len(node.children) == len(keys)
    assert not is_root or len(keys) > 1, "an inner root with one child"
    assert low or keys[0] == 0, "the first key of a leftmost node is not 0"
    return 1 + sum(
        _walk(plan, kind, (child, level - 1), (key, following), owner, entries)
        for key, child, following in zip(keys, node.children, [*keys[1:], high], strict=True)
    )
