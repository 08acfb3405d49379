"""B+trees under repair: what is left of one, and building a new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from operator import ge

from deferfs.check.repair.context import NoFreeBlockError, RepairContext
from deferfs.check.repair.leaves import salvage_leaf, torn_leaf
from deferfs.check.trees import LEVELS_MAX
from deferfs.errors import CorruptionError
from deferfs.ondisk.node import DirectoryNode, Node

Entry = tuple[int, bytes]
_KEYS_END = 1 << 64
"""All keys lie below."""
_KEY_BYTES = 8


class Remains:
    """The nodes of one tree that can be used, reached from `root`. After a walk, `nodes` are their addresses, and
    `damaged` says that the tree must be rebuilt, `named` are all addresses in the image that the nodes lead to.

    Every address is visited once, and a child lies one level lower: a walk ends, whatever the nodes say.
    """

    def __init__(self, repair: RepairContext, kind: type[Node], ino: int, root: int) -> None:
        self.repair = repair
        self.kind = kind
        self.ino = ino
        self.root = root
        self.nodes: list[int] = []
        self.named: list[int] = []
        self.damaged = False

    def leaves(self) -> Iterator[Node]:
        """The usable leaves, from left to right, those included that were found without the tree."""
        found = self.repair.lost_leaves.get(self.ino) if self.kind is DirectoryNode else None
        if not found:
            yield from self._reachable()
            return
        places = [(node.keys[0], node_address) for node, node_address in self._with_addresses() if node.keys]
        for _, address in sorted(places + found):
            node = self._open(address, 0)
            if node is not None:
                yield node
        self.nodes += [address for _, address in found]
        self.damaged = True

    def _with_addresses(self) -> Iterator[tuple[Node, int]]:
        for node in self._reachable():
            yield node, self.nodes[-1]

    def _reachable(self) -> Iterator[Node]:
        """The usable leaves below the root."""
        self.nodes, self.named, self.damaged = [], [], False
        seen: set[int] = set()
        todo = [(self.root, -1, 0, _KEYS_END)]
        while todo:
            address, level, low, high = todo.pop()
            if self.repair.inside(address, 1):
                self.named.append(address)
            node = None if address in seen else self._open(address, level)
            if node is None:
                self.damaged = True
                continue
            seen.add(address)
            self.nodes.append(address)
            keys = node.keys
            if any(map(ge, keys, islice(keys, 1, None))) or (keys and (keys[0] < low or keys[-1] >= high)):
                self.damaged = True
            if not keys and (level >= 0 or node.level):
                self.damaged = True
            if node.level == 0:
                yield node
            elif keys:
                highs = [*islice(keys, 1, None), high]
                below = zip(node.children, keys, highs, strict=True)
                todo += reversed([(child, node.level - 1, first, end) for child, first, end in below])

    def entries(self) -> Iterator[Entry]:
        """The entries of the usable leaves, in the order in which they are found."""
        for leaf in self.leaves():
            yield from zip(leaf.keys, leaf.values, strict=True)

    def release(self) -> None:
        """After a walk: all that the nodes say is known, or in the new tree. What is only named is given back too."""
        for address in self.nodes:
            self.repair.release(address, 1)
        found = [address for _, address in self.repair.lost_leaves.get(self.ino, ())]
        for address in self.named + found:
            if not self.repair.used[address]:
                self.repair.stock.give_back(address, 1)

    def _open(self, address: int, level: int) -> Node | None:
        repair = self.repair
        data = repair.read(address) if repair.inside(address, 1) else None
        if data is None:
            return None
        node: Node | None = None
        try:
            node = repair.decode(self.kind, address, data, f"inode {self.ino}: tree")
        except CorruptionError:
            if self.kind is DirectoryNode:
                node = salvage_leaf(repair, self.ino, address, data)
            elif torn_leaf(repair.fmt, self.kind, self.ino, address, data) is not None:
                repair.torn_leaves.setdefault(self.ino, set()).add(address)
        if node is None:
            return None
        if node.owner != self.ino or node.level > LEVELS_MAX or level not in (-1, node.level):
            return None
        return node


def build(repair: RepairContext, kind: type[Node], ino: int, entries: Iterable[Entry]) -> tuple[int, int]:
    """A new tree of ascending `entries` in fresh blocks: (root, nodes). NoFreeBlockError, with nothing taken."""
    nodes: list[int] = []
    try:
        made = _leaves(repair, kind, ino, entries, nodes)
        level = 1
        while len(made) > 1:
            made = _parents(repair, kind, ino, made, level, nodes)
            level += 1
    except NoFreeBlockError:
        for address in nodes:
            repair.release(address, 1)
        raise
    return made[0][1], len(nodes)


_Made = list[tuple[int, int]]
"""(first key, address) of the nodes of one level."""


def _leaves(repair: RepairContext, kind: type[Node], ino: int, entries: Iterable[Entry], nodes: list[int]) -> _Made:
    made: _Made = []
    leaf = kind(ino)
    for key, value in entries:
        if leaf.used + kind.LEAF_ENTRY_BYTES + len(value) > repair.fmt.block_size:
            made.append(_write(repair, leaf, nodes))
            leaf = kind(ino)
        leaf.insert_value(len(leaf.keys), key, value)
    made.append(_write(repair, leaf, nodes))
    return made


def _parents(repair: RepairContext, kind: type[Node], ino: int, made: _Made, level: int, nodes: list[int]) -> _Made:
    """The inner nodes of one level above `made`. The leftmost key of a level bounds nothing: it is 0."""
    parents: _Made = []
    node = kind(ino, level)
    for key, child in made:
        if node.used + 2 * _KEY_BYTES > repair.fmt.block_size:
            parents.append(_write(repair, node, nodes))
            node = kind(ino, level)
        node.insert_child(len(node.keys), key if parents or len(node.keys) else 0, child)
    parents.append(_write(repair, node, nodes))
    return parents


def _write(repair: RepairContext, node: Node, nodes: list[int]) -> tuple[int, int]:
    address = repair.allocate()
    nodes.append(address)
    repair.write(address, node.encode(repair.fmt, address))
    return (node.keys[0] if len(node.keys) else 0), address
