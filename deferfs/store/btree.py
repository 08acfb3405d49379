"""B+trees over plans: one implementation for extents and directories.

**Invariants**
- Keys are strictly ascending in every node, and through the leaves from left to right.
- `keys[i]` of an inner node is a lower bound for everything below `children[i]`; the first key of the leftmost nodes
  is 0.
- Only a root without children may be empty. A node less than a quarter full is merged with a neighbour when both fit
  into three quarters of a block.
- The depth is that of the root's `level`; all leaves have level 0.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from deferfs.errors import CorruptionError
from deferfs.ondisk.node import Node
from deferfs.store.plan import Plan

DEPTH_MAX = 12
"""More levels than any tree can have: bounds the descent in a damaged image."""


class Step(NamedTuple):
    """One node of a descent, and the index of the child taken."""

    address: int
    child: int


class BTree:
    """A tree of `kind` nodes owned by inode `owner`. Changes update `root` and `blocks` (net number of nodes added)."""

    __slots__ = ("blocks", "kind", "owner", "plan", "root")

    def __init__(self, plan: Plan, kind: type[Node], owner: int, root: int) -> None:
        self.plan = plan
        self.kind = kind
        self.owner = owner
        self.root = root
        self.blocks = 0

    @classmethod
    def build(cls, plan: Plan, kind: type[Node], owner: int, entries: list[tuple[int, bytes]], goal: int) -> BTree:
        """Create a tree of one leaf."""
        tree = cls(plan, kind, owner, 0)
        leaf = kind(owner)
        for index, (key, value) in enumerate(entries):
            leaf.insert_value(index, key, value)
        tree.root = tree._new(leaf, goal)
        return tree

    # --- lookups ---
    def leaf(self, key: int) -> Node:
        """The leaf in which `key` belongs."""
        node = self._top()
        while node.level:
            node = self._child(node, max(0, bisect_right(node.keys, key) - 1))
        return node

    def _top(self) -> Node:
        """The root node. CorruptionError when its level exceeds DEPTH_MAX or it belongs to another inode."""
        node = self.plan.get(self.root, self.kind)
        if node.owner != self.owner or node.level > DEPTH_MAX:
            raise CorruptionError(f"tree of inode {self.owner}: block {self.root} is not its root")
        return node

    def _child(self, node: Node, index: int) -> Node:
        """A child, which must be one level lower: hence every descent ends, even in a damaged image."""
        if not -len(node.children) <= index < len(node.children):
            raise CorruptionError(f"tree of inode {self.owner}: an inner node lacks children")
        child = self.plan.get(node.children[index], self.kind)
        if child.level != node.level - 1 or child.owner != self.owner or not child.keys:
            raise CorruptionError(f"tree of inode {self.owner}: block {node.children[index]} does not belong there")
        return child

    def get(self, key: int) -> bytes | None:
        leaf = self.leaf(key)
        index = bisect_left(leaf.keys, key)
        if index < len(leaf.keys) and leaf.keys[index] == key:
            return leaf.values[index]
        return None

    def floor(self, key: int) -> tuple[int, bytes] | None:
        """The entry with the largest key <= `key`."""
        leaf = self.leaf(key)
        index = bisect_right(leaf.keys, key) - 1
        if index >= 0:
            return leaf.keys[index], leaf.values[index]
        path = self._path(key)
        while path and path[-1].child == 0:
            path.pop()
        if not path:
            return None
        address, index = path.pop()
        node = self._child(self.plan.get(address, self.kind), index - 1)
        while node.level:
            node = self._child(node, -1)
        return node.keys[-1], node.values[-1]

    def ceiling(self, key: int) -> tuple[int, bytes] | None:
        """The entry with the smallest key >= `key`."""
        leaf = self.leaf(key)
        index = bisect_left(leaf.keys, key)
        if index < len(leaf.keys):
            return leaf.keys[index], leaf.values[index]
        following = self.next_leaf(key)
        return None if following is None else (following.keys[0], following.values[0])

    def next_leaf(self, key: int) -> Node | None:
        """The leaf to the right of the one in which `key` belongs."""
        path = self._path(key)
        while path:
            address, index = path.pop()
            node = self.plan.get(address, self.kind)
            if index + 1 < len(node.children):
                node = self._child(node, index + 1)
                while node.level:
                    node = self._child(node, 0)
                return node
        return None

    def _path(self, key: int) -> list[Step]:
        """The descent from the root to the parent of the leaf of `key`."""
        path: list[Step] = []
        address = self.root
        node = self._top()
        while node.level:
            index = max(0, bisect_right(node.keys, key) - 1)
            path.append(Step(address, index))
            node = self._child(node, index)
            address = self.plan.get(path[-1].address, self.kind).children[index]
        return path

    def _leaf_address(self, path: list[Step]) -> int:
        if not path:
            return self.root
        return self.plan.get(path[-1].address, self.kind).children[path[-1].child]

    # --- changes ---
    def insert(self, key: int, value: bytes) -> None:
        """Add an entry with a new key. CorruptionError when the key exists."""
        path = self._path(key)
        address = self._leaf_address(path)
        leaf = self.plan.modify(address, self.kind)
        index = bisect_left(leaf.keys, key)
        if index < len(leaf.keys) and leaf.keys[index] == key:
            raise CorruptionError(f"tree of inode {self.owner}: key {key} is there already")
        leaf.insert_value(index, key, value)
        self._split(path, address, leaf, index)

    def replace(self, key: int, value: bytes) -> None:
        """Change the value of an existing key; the length must not change."""
        address = self._leaf_address(self._path(key))
        leaf = self.plan.modify(address, self.kind)
        index = bisect_left(leaf.keys, key)
        self._require(leaf, index, key)
        assert len(leaf.values[index]) == len(value)
        leaf.values[index] = value

    def delete(self, key: int) -> None:
        """Remove an existing key."""
        path = self._path(key)
        address = self._leaf_address(path)
        leaf = self.plan.modify(address, self.kind)
        index = bisect_left(leaf.keys, key)
        self._require(leaf, index, key)
        leaf.delete(index)
        self._shrink(path, address, leaf)

    def _require(self, leaf: Node, index: int, key: int) -> None:
        """CorruptionError unless `leaf` has `key` at `index`: a lookup found the key, so the tree is out of order."""
        if index >= len(leaf.keys) or leaf.keys[index] != key:
            raise CorruptionError(f"tree of inode {self.owner}: key {key} is out of order")

    def free(self) -> None:
        """Free the root, which must be the only node."""
        self.plan.free_metadata(self.root)
        self.blocks -= 1
        self.root = 0

    def _new(self, node: Node, goal: int) -> int:
        address, _ = self.plan.allocate(goal, 1)
        self.plan.create(address, node)
        self.blocks += 1
        return address

    def _split(self, path: list[Step], address: int, node: Node, inserted: int) -> None:
        """Split `node` until it fits into a block, then its ancestors. `inserted`: index of the newest entry."""
        block = self.plan.store.fmt.block_size
        while node.used > block:
            cut = self._cut(node, inserted)
            right = self.kind(self.owner, node.level)
            right.take_from(node, cut, len(node.keys))
            node.truncate(cut)
            right_address = self._new(right, address)
            if not path:
                root = self.kind(self.owner, node.level + 1)
                root.insert_child(0, 0, address)
                root.insert_child(1, right.keys[0], right_address)
                self.root = self._new(root, address)
                return
            address, index = path.pop()
            node = self.plan.modify(address, self.kind)
            inserted = index + 1
            node.insert_child(inserted, right.keys[0], right_address)

    @staticmethod
    def _cut(node: Node, inserted: int) -> int:
        """Number of entries that stay left: half of the bytes, or all but the last for sequential appends."""
        count = len(node.keys)
        if inserted == count - 1:
            return count - 1
        half, used, cut = node.used // 2, 0, 0
        while cut < count - 1 and used + node.entry_bytes(cut) <= half:
            used += node.entry_bytes(cut)
            cut += 1
        return max(1, cut)

    def _shrink(self, path: list[Step], address: int, node: Node) -> None:
        """Remove `node` when it is empty, merge it when it is small; then its ancestors."""
        block = self.plan.store.fmt.block_size
        while path:
            if len(node.keys) and node.used >= block // 4:
                return
            step = path.pop()
            parent = self.plan.modify(step.address, self.kind)
            if not len(node.keys):
                self._remove_child(parent, step.child, address)
            elif not self._merge(parent, step.child, node):
                return
            address, node = step.address, parent
        while node.level and len(node.keys) == 1:
            child = node.children[0]
            self.plan.free_metadata(address)
            self.blocks -= 1
            self.root = address = child
            node = self.plan.get(child, self.kind)
        if node.level and not len(node.keys):
            # the last child was removed: an empty tree is one empty leaf
            self.plan.free_metadata(address)
            self.blocks -= 1
            self.root = self._new(self.kind(self.owner), address)

    def _remove_child(self, parent: Node, index: int, address: int) -> None:
        bound = parent.keys[index]
        parent.delete(index)
        if index == 0:
            self._lower_bound(parent, bound)
        self.plan.free_metadata(address)
        self.blocks -= 1

    def _lower_bound(self, node: Node, bound: int) -> None:
        """Lower the first key of `node` and of its leftmost descendants above the leaves to `bound`."""
        while node.level and len(node.keys):
            node.keys[0] = bound
            if node.level == 1:
                return
            node = self.plan.modify(node.children[0], self.kind)

    def _merge(self, parent: Node, index: int, node: Node) -> bool:
        """Merge `node` with a sibling when both are small; whether it was done."""
        block = self.plan.store.fmt.block_size
        for left, right in ((index - 1, index), (index, index + 1)):
            if left < 0 or right >= len(parent.keys):
                continue
            other = self.plan.get(parent.children[left if right == index else right], self.kind)
            if node.used + other.used > block * 3 // 4:
                continue
            into = self.plan.modify(parent.children[left], self.kind)
            gone_address = parent.children[right]
            gone = self.plan.get(gone_address, self.kind)
            into.take_from(gone, 0, len(gone.keys))
            parent.delete(right)
            self.plan.free_metadata(gone_address)
            self.blocks -= 1
            return True
        return False
