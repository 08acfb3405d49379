"""A sorted map kept in an inode: inline in its record while small, otherwise a B+tree.

The same code serves extents (keys: logical blocks) and directories (keys: name hashes).

**Invariant:** the entries ascend by key. Entries that no longer fit beside the xattrs move to a tree; a tree that has
shrunk to one leaf moves back once it fits into half of that space, a hysteresis that prevents thrashing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from deferfs.errors import CorruptionError
from deferfs.ondisk.inode import (
    FORM_DIRECTORY_TREE,
    FORM_ENTRIES,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    Inode,
)
from deferfs.ondisk.node import EXTENT, DirectoryNode, ExtentNode, Node
from deferfs.store.btree import BTree
from deferfs.store.plan import Plan

_INLINE_EXTENT_BYTES = 8 + EXTENT.size
"""Bytes of an extent in the record: key and value."""
_INLINE_ENTRY_BYTES = 10
"""Bytes of a directory entry in the record without its value: key and length."""
Entry = tuple[int, bytes]
"""(key, value)."""


class Fork:
    """The extents or directory entries of `inode`, which must be the plan's own staged copy to be changed."""

    __slots__ = ("inline_form", "inode", "kind", "plan", "tree_form")

    def __init__(self, plan: Plan, inode: Inode, kind: type[Node], inline_form: int, tree_form: int) -> None:
        self.plan = plan
        self.inode = inode
        self.kind = kind
        self.inline_form = inline_form
        self.tree_form = tree_form

    # --- lookups ---
    @property
    def is_tree(self) -> bool:
        return self.inode.form == self.tree_form

    def tree(self) -> BTree:
        return BTree(self.plan, self.kind, self.inode.ino, self.inode.root)

    def get(self, key: int) -> bytes | None:
        if self.is_tree:
            return self.tree().get(key)
        for found, value in self.inode.entries:
            if found == key:
                return value
        return None

    def floor(self, key: int) -> Entry | None:
        """The entry with the largest key <= `key`."""
        if self.is_tree:
            found = self.tree().floor(key)
        else:
            index = bisect_right(self.inode.entries, key, key=_key) - 1
            found = self.inode.entries[index] if index >= 0 else None
        if found is not None and found[0] > key:
            raise CorruptionError(f"inode {self.inode.ino}: keys are out of order")
        return found

    def ceiling(self, key: int) -> Entry | None:
        """The entry with the smallest key >= `key`."""
        if self.is_tree:
            found = self.tree().ceiling(key)
        else:
            index = bisect_left(self.inode.entries, key, key=_key)
            found = self.inode.entries[index] if index < len(self.inode.entries) else None
        if found is not None and found[0] < key:
            raise CorruptionError(f"inode {self.inode.ino}: keys are out of order")
        return found

    def iterate(self, start: int) -> Iterator[Entry]:
        """Entries with keys >= `start`, ascending. The map must not change during the iteration."""
        if not self.is_tree:
            index = bisect_left(self.inode.entries, start, key=_key)
            yield from self.inode.entries[index:]
            return
        tree = self.tree()
        leaf: Node | None = tree.leaf(start)
        while leaf is not None:
            for index in range(bisect_left(leaf.keys, start), len(leaf.keys)):
                yield leaf.keys[index], leaf.values[index]
            if not len(leaf.keys):
                return
            start = max(start, leaf.keys[-1])
            leaf = tree.next_leaf(start)
            if leaf is not None and leaf.keys[-1] <= start:
                raise CorruptionError(f"inode {self.inode.ino}: leaves are out of order")

    # --- changes ---
    def insert(self, key: int, value: bytes) -> None:
        """Add an entry with a new key."""
        inode = self.inode
        if not self.is_tree:
            entries = list(inode.entries)
            entries.insert(bisect_left(entries, key, key=_key), (key, value))
            if self._inline_bytes(entries) <= inode.inline_capacity():
                inode.set_entries(self.inline_form, tuple(entries))
                return
            self.to_tree()
        tree = self.tree()
        tree.insert(key, value)
        self._keep(tree)

    def replace(self, key: int, value: bytes) -> None:
        """Change the value of an existing key; the length must not change."""
        if self.is_tree:
            tree = self.tree()
            tree.replace(key, value)
            self._keep(tree)
            return
        entries = list(self.inode.entries)
        index = bisect_left(entries, key, key=_key)
        self._require(entries, index, key)
        entries[index] = (key, value)
        self.inode.set_entries(self.inline_form, tuple(entries))

    def delete(self, key: int) -> None:
        """Remove an existing key."""
        inode = self.inode
        if not self.is_tree:
            entries = list(inode.entries)
            index = bisect_left(entries, key, key=_key)
            self._require(entries, index, key)
            del entries[index]
            inode.set_entries(self.inline_form, tuple(entries))
            return
        tree = self.tree()
        tree.delete(key)
        self._keep(tree)
        root = self.plan.get(tree.root, self.kind)
        if root.level == 0 and len(root.keys) <= 16:
            entries = list(zip(root.keys, root.values, strict=True))
            if 2 * self._inline_bytes(entries) <= inode.inline_capacity():
                tree.free()
                self._keep(tree)
                inode.set_entries(self.inline_form, tuple(entries))

    def _require(self, entries: list[Entry], index: int, key: int) -> None:
        if index >= len(entries) or entries[index][0] != key:
            raise CorruptionError(f"inode {self.inode.ino}: key {key} is out of order")

    def to_tree(self) -> None:
        """Move inline entries into a tree: they, or the xattrs, need the space."""
        inode = self.inode
        tree = BTree.build(self.plan, self.kind, inode.ino, list(inode.entries), 0)
        inode.set_tree(self.tree_form, tree.root)
        inode.blocks += tree.blocks

    def _keep(self, tree: BTree) -> None:
        """Copy root and block count of a changed tree to the inode; once for each change."""
        self.inode.root = tree.root
        self.inode.blocks += tree.blocks
        tree.blocks = 0

    def _inline_bytes(self, entries: list[Entry]) -> int:
        if self.kind is ExtentNode:
            return _INLINE_EXTENT_BYTES * len(entries)
        return sum(_INLINE_ENTRY_BYTES + len(value) for _, value in entries)


def _key(entry: Entry) -> int:
    return entry[0]


def extent_fork(plan: Plan, inode: Inode) -> Fork:
    """The extents of a file."""
    return Fork(plan, inode, ExtentNode, FORM_EXTENTS, FORM_EXTENT_TREE)


def directory_fork(plan: Plan, inode: Inode) -> Fork:
    """The entries of a directory."""
    return Fork(plan, inode, DirectoryNode, FORM_ENTRIES, FORM_DIRECTORY_TREE)
