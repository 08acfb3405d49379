"""Finding a key for every entry of a directory that is rebuilt."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import chain
from typing import Final

from deferfs.check.nearby import NearbyNames
from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.trees import Entry
from deferfs.check.table import TYPE_DIRECTORY
from deferfs.limits import DIRECTORY_WINDOW
from deferfs.ondisk.directory import unpack_entry
from deferfs.printable import printable

_END: Final[Entry] = (1 << 64, b"")
"""Above all keys: the end of the merge."""


def shown(name: bytes) -> str:
    """A name in a message."""
    return f"'{printable(name)}'"


class Filing:
    """The entries of `directory`, ascending by key: those that are `kept` under the keys that they have, and `others`,
    which ascend by the lowest key that they may have, under the first one that is free from there on. Of two with one
    name the second is left out. `targets` takes the inodes that are named.
    """

    def __init__(self, repair: RepairContext, directory: int, targets: array[int]) -> None:
        self.repair = repair
        self.directory = directory
        self.targets = targets
        self.names = NearbyNames()

    def entries(self, kept: Iterator[Entry], others: list[Entry]) -> Iterator[Entry]:
        """All of them, in order; `kept` is consumed lazily."""
        free = at = 0
        for key, value in chain(kept, (_END,)):
            while at < len(others) and (place := max(others[at][0], free)) < key:
                low, other = others[at]
                at += 1
                if place >= low + DIRECTORY_WINDOW:
                    self._leave_out(other, "no key is free for it")
                elif self._takes(place, other):
                    free = place + 1
                    yield place, other
            if (key, value) != _END and self._takes(key, value):
                free = key + 1
                yield key, value

    def _takes(self, key: int, value: bytes) -> bool:
        ino, _, name = unpack_entry(value)
        if not self.names.add(key, name):
            self._leave_out(value, "it is there already")
            return False
        self.targets.append(ino)
        return True

    def _leave_out(self, value: bytes, reason: str) -> None:
        ino, _, name = unpack_entry(value)
        table = self.repair.table
        self.repair.note(f"directory {self.directory}: {shown(name)} removed: {reason}")
        if table.type_of(ino) == TYPE_DIRECTORY:
            table.found_in[table.slot(ino)] = 0  # this entry made the directory its parent
