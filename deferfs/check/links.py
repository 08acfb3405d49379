"""Pass 6: link counts, and whether everything can be reached from the root."""

from __future__ import annotations

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.check.table import DAMAGED, FREE, TYPE_DIRECTORY, InodeTable
from deferfs.ondisk.inode import FIRST_INO, ROOT_INO

_WALKING, _REACHABLE, _LOST = 1, 2, 3


def check_links(context: Context, table: InodeTable) -> None:
    """Compare what the records say with what the directories hold."""
    _check_reachable(context, table)
    for ino, slot in table.inodes():
        file_type = table.types[slot]
        if file_type in (FREE, DAMAGED) or (ino < FIRST_INO and ino != ROOT_INO):
            continue
        if file_type == TYPE_DIRECTORY:
            _check_directory(context, table, ino, slot)
        else:
            _check_other(context, table, ino, slot)


def _check_directory(context: Context, table: InodeTable, ino: int, slot: int) -> None:
    nlink = table.nlink[slot]
    in_use = ino == ROOT_INO or table.links[slot] > 0
    expected = 2 + table.subdirectories[slot]
    # A directory that no entry names is either removed (an orphan) or reported as unreachable, with
    # its link count as before.
    if (nlink or in_use) and nlink != expected:
        text = f"directory {ino}: link count {nlink}, {expected} expected"
        context.findings.add(catalogue.LINK_COUNT, text, ino=ino)


def _check_other(context: Context, table: InodeTable, ino: int, slot: int) -> None:
    nlink, links = table.nlink[slot], table.links[slot]
    if nlink and not links:
        text = f"inode {ino}: link count {nlink}, but no directory names it"
        context.findings.add(catalogue.INODE_UNREACHABLE, text, ino=ino)
    elif nlink != links:
        text = f"inode {ino}: link count {nlink}, {links} found"
        context.findings.add(catalogue.LINK_COUNT, text, ino=ino)


def _check_reachable(context: Context, table: InodeTable) -> None:
    """Follow each directory up to the root; one that does not lead there is lost. Of a lost tree
    only the topmost directory is reported.
    """
    states = bytearray(len(table.types))
    root = table.slot(ROOT_INO)
    if root >= 0:
        states[root] = _REACHABLE
    for ino, slot in table.inodes():
        if table.types[slot] != TYPE_DIRECTORY or states[slot]:
            continue
        path: list[int] = []
        at, top = slot, ino
        while not states[at]:
            states[at] = _WALKING
            path.append(at)
            if not table.found_in[at]:
                break
            top = table.found_in[at]
            at = table.slot(top)
        # Here `at` is known from an earlier walk, or is named by none, or the walk has found a cycle.
        removed = not table.nlink[at] and not table.found_in[at]
        if states[at] == _WALKING and not removed:
            text = f"directory {top}: cannot be reached from the root"
            context.findings.add(catalogue.DIRECTORY_UNREACHABLE, text, ino=top)
        end = _REACHABLE if states[at] == _REACHABLE else _LOST
        for below in path:
            states[below] = end
