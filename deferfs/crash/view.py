"""A recovered filesystem as a program would see it: paths and bytes."""

from __future__ import annotations

import os
from collections.abc import Callable

from deferfs.crash.content import CHUNK_BYTES
from deferfs.crash.layout import Layout
from deferfs.crash.model import ROOT, Node, Nodes

Path = str | bytes


class RecoveredView:
    """Read-only. Symbolic links are not followed. FileNotFoundError for a missing path."""

    def __init__(self, tree: Nodes, layout: Layout, read: Callable[[int, int], bytes]) -> None:
        self._tree = tree
        self._layout = layout
        self._read = read

    def _find(self, path: Path) -> tuple[int, Node] | None:
        ino = ROOT
        for name in os.fsencode(path).split(b"/"):
            if name:
                found = self._tree[ino].entries.get(name)
                if found is None:
                    return None
                ino = found
        return ino, self._tree[ino]

    def node(self, path: Path) -> Node:
        """Mode, owners, link count, size, times, attributes; the target of a link."""
        found = self._find(path)
        if found is None:
            raise FileNotFoundError(path)
        return found[1]

    def exists(self, path: Path) -> bool:
        """Whether the path exists."""
        return self._find(path) is not None

    def names(self, path: Path = b"/") -> list[bytes]:
        """The names in a directory, sorted."""
        return sorted(self.node(path).entries)

    def read(self, path: Path) -> bytes:
        """All bytes of a file."""
        found = self._find(path)
        if found is None:
            raise FileNotFoundError(path)
        ino, node = found
        chunks = range(-(-node.size // CHUNK_BYTES))
        return b"".join(self._layout.chunk((ino, number), self._read) for number in chunks)
