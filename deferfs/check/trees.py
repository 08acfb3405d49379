"""B+trees of any content: structure, order, ownership. The callers judge the content of the leaves.

Every node is claimed before it is read, so a tree that leads back into itself, or into another one,
is detected and not followed; work and memory are bounded by the blocks of the image, whatever the nodes say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import ge
from typing import Final, Generic, TypeVar

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.errors import CorruptionError
from deferfs.ondisk.node import Node

N = TypeVar("N", bound=Node)
LEVELS_MAX: Final = 16
"""A tree of 2^63 entries in blocks of 1 KiB needs 11 levels."""
_KEYS_END: Final = 1 << 64
"""All keys lie below."""


@dataclass(slots=True)
class _Todo:
    """A node to visit: its keys must lie in [low, high), its level must be `level` (None: the
    root).
    """

    address: int
    low: int
    high: int
    level: int | None


class Tree(Generic[N]):
    """One walk over one tree. After it, `blocks` counts the nodes and `complete` says whether all
    could be read.
    """

    def __init__(self, context: Context, kind: type[N], ino: int, root: int) -> None:
        self.context = context
        self.kind = kind
        self.ino = ino
        self.root = root
        self.blocks = 0
        self.complete = True

    def leaves(self) -> Iterator[N]:
        """The usable leaves, in key order; problems go to the findings."""
        todo = [_Todo(self.root, 0, _KEYS_END, None)]
        while todo:
            place = todo.pop()
            node = self._open(place)
            if node is None:
                self.complete = False
            elif node.level == 0:
                yield node
            else:
                todo += reversed(self._below(place, node))

    def _report(self, kind: catalogue.Kind, address: int, text: str) -> None:
        where = f"inode {self.ino}: tree node {address}: {text}"
        self.context.findings.add(kind, where, ino=self.ino, block=address)

    def _open(self, place: _Todo) -> N | None:
        """Claim, read and check one node; None when nothing below it can be looked at."""
        context, address = self.context, place.address
        if not context.claims.inside(address, 1):
            self._report(catalogue.NODE_ADDRESS, address, "outside the image")
            return None
        self.blocks += 1
        owner = f"inode {self.ino}: tree node"
        if not context.claims.claim(address, 1, owner):
            return None
        data = context.reader.read(address)
        if data is None:
            return None
        try:
            node = self.kind.decode(context.fmt, address, data)
        except CorruptionError as error:
            self._report(catalogue.NODE_DAMAGED, address, error.detail)
            return None
        return node if self._structure_right(place, node) else None

    def _structure_right(self, place: _Todo, node: N) -> bool:
        address = place.address
        if node.owner != self.ino:
            self._report(catalogue.NODE_OWNER, address, f"belongs to inode {node.owner}")
            return False
        if node.level > LEVELS_MAX or (place.level is not None and node.level != place.level):
            wanted = f"not {place.level}" if place.level is not None else "impossibly high"
            self._report(catalogue.NODE_LEVEL, address, f"level {node.level}, {wanted}")
            return False
        keys = node.keys
        if not keys:
            # only an empty root leaf is the normal form of an empty tree
            if place.level is not None or node.level:
                self._report(catalogue.NODE_EMPTY, address, f"empty, on level {node.level}")
            return True
        if any(map(ge, keys, islice(keys, 1, None))):
            self._report(catalogue.NODE_KEYS, address, "keys do not ascend")
            return False
        if keys[0] < place.low or keys[-1] >= place.high:
            text = f"keys {keys[0]} to {keys[-1]} outside of {place.low} to {place.high - 1}"
            self._report(catalogue.NODE_KEYS, address, text)
            return False
        return True

    @staticmethod
    def _below(place: _Todo, node: N) -> list[_Todo]:
        if not node.keys:
            return []
        highs = [*islice(node.keys, 1, None), place.high]
        return [
            _Todo(child, low, high, node.level - 1)
            for child, low, high in zip(node.children, node.keys, highs, strict=True)
        ]
