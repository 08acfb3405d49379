"""The complete state of an open volume as a model state, read by operations of the volume."""

from __future__ import annotations

import stat

from deferfs.crash.content import CHUNK_BYTES, EMPTY, Content
from deferfs.crash.model import ROOT, Node, Nodes
from deferfs.ondisk.inode import Inode
from deferfs.store.plan import Plan
from deferfs.volume import attributes, files, namespace, xattrs
from deferfs.volume.driver import Driver


def times_of(record: Inode) -> tuple[int, int, int, int]:
    """The times of a record, as in `Node.times`."""
    return record.atime, record.mtime, record.ctime, record.crtime


def orphans_of(driver: Driver) -> set[int]:
    """Inodes without a name, waiting for inactivation."""
    table = driver.volume.store.orphans

    def look(plan: Plan) -> set[int]:
        return {slot.ino for number in range(len(table.used)) for slot in table.slots(plan, number) if slot.ino}

    return driver.run(look)


def read_tree(driver: Driver) -> dict[int, Node]:
    """Every inode reachable by a name or the orphan table, without the content of files."""
    found: dict[int, Node] = {}
    waiting = [ROOT, *sorted(orphans_of(driver))]
    while waiting:
        ino = waiting.pop()
        if ino not in found:
            node = found[ino] = _read_node(driver, ino)
            waiting.extend(node.entries.values())
    return found


def _read_node(driver: Driver, ino: int) -> Node:
    volume = driver.volume

    def look(plan: Plan) -> tuple[Inode, dict[bytes, int], dict[bytes, bytes]]:
        record = attributes.getattr(plan, volume, ino)
        entries: dict[bytes, int] = {}
        if stat.S_ISDIR(record.mode):
            for entry in namespace.readdir(plan, volume, ino, 2):
                assert entry.name not in entries, f"inode {ino}: readdir gives {entry.name!r} twice"
                assert namespace.lookup(plan, volume, ino, entry.name).ino == entry.ino
                entries[entry.name] = entry.ino
        names = xattrs.listxattr(plan, volume, ino)
        return record, entries, {name: xattrs.getxattr(plan, volume, ino, name) for name in names}

    record, entries, attached = driver.run(look)
    return Node(
        record.mode,
        record.uid,
        record.gid,
        record.nlink,
        record.size,
        record.rdev,
        record.parent,
        driver.readlink(ino) if stat.S_ISLNK(record.mode) else b"",
        entries,
        attached,
        times_of(record),
        record.generation,
    )


def read_content(driver: Driver, ino: int, size: int) -> Content:
    """The bytes of a file. Only mapped parts are read."""
    volume = driver.volume
    found = driver.run(files.read, volume, ino, 0, min(size, CHUNK_BYTES))
    if found.inline is not None:
        # inline data can only be followed by zeros
        return EMPTY.write(0, found.inline)
    found = driver.run(files.read, volume, ino, 0, size)
    content, at = EMPTY, 0
    for piece in found.pieces:
        if piece.offset is not None:
            content = content.write(at, driver.device.read(piece.offset, piece.length))
        at += piece.length
    return content


def check_contents(driver: Driver, nodes: Nodes) -> list[str]:
    """Differences of the linked files' contents from `nodes`: one line for each file."""
    problems: list[str] = []
    for ino, node in nodes.items():
        if node.is_file and node.nlink:
            found = read_content(driver, ino, node.size)
            bad = [n for n in found.numbers() | node.content.numbers() if found.chunk(n) != node.content.chunk(n)]
            if bad:
                problems.append(f"inode {ino}: wrong data in {CHUNK_BYTES}-byte chunks {sorted(bad)}")
    return problems
