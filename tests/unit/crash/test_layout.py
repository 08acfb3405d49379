"""The content of files against their history, chunk by chunk."""

from __future__ import annotations

import random
import stat
from collections.abc import Sequence

from deferfs.crash.content import CHUNK_BYTES, EMPTY
from deferfs.crash.history import Piece
from deferfs.crash.layout import Layout, chunks_with_content, layout_of, wrong_bytes
from deferfs.crash.model import Node
from deferfs.crash.tree import read_content, read_tree
from deferfs.device import SECTOR_BYTES
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode
from tests.unit.volumes import fresh_driver

OLD = random.Random(1).randbytes(2 * SECTOR_BYTES)
NEW = random.Random(2).randbytes(2 * SECTOR_BYTES)


def judged(found: bytes, versions: Sequence[bytes], trashed: frozenset[int] = frozenset()) -> str | None:
    """Inode 8 holds `found`, in sectors 10 and 11 of the disk; its state says OLD, and these versions came after."""
    layout = Layout({8: len(OLD)}, {}, {(8, 0): [(0, 10 * SECTOR_BYTES, len(OLD))]}, {})
    disk = bytes(10 * SECTOR_BYTES) + found
    state = {8: Node(stat.S_IFREG | 0o600, size=len(OLD), content=EMPTY.write(0, OLD))}
    return wrong_bytes(
        layout,
        [(8, 0)],
        lambda offset, length: disk[offset : offset + length],
        state,
        lambda ino, number: [Piece(0, data) for data in (OLD, *versions)],
        trashed,
    )


def test_the_state_and_what_was_written_since_are_allowed() -> None:
    mixed = NEW[:SECTOR_BYTES] + OLD[SECTOR_BYTES:]
    assert judged(OLD, []) is None
    assert judged(mixed, [NEW]) is None
    assert judged(NEW, []) is not None


def test_a_foreign_byte_is_named() -> None:
    foreign = bytearray(OLD)
    foreign[700] ^= 1
    found = judged(bytes(foreign), [])
    assert found is not None
    assert "inode 8: byte 700 is" in found


def test_a_trashed_sector_is_passed_over_and_no_other() -> None:
    trashed = OLD[:SECTOR_BYTES] + bytes(SECTOR_BYTES)
    assert judged(trashed, []) is not None
    assert judged(trashed, [], frozenset({11})) is None
    assert judged(trashed, [], frozenset({10})) is not None


def test_a_layout_reads_what_the_volume_reads() -> None:
    """Inline, in blocks, sparse, longer than what is written."""
    driver = fresh_driver()
    dice = random.Random(3)
    for number, writes in enumerate(([(0, 100)], [(0, 9000)], [(50_000, 3000), (100, 10)], [(4095, 2)], [])):
        name = b"%d" % number
        ino = driver.run(namespace.create, driver.volume, 1, name, NewInode(stat.S_IFREG | 0o600)).ino
        for offset, length in writes:
            driver.write(ino, offset, dice.randbytes(length))
        driver.truncate(ino, 60_000 if number % 2 else 70)
    tree = read_tree(driver)
    layout = layout_of(driver, tree, 4096)
    for ino, node in tree.items():
        if node.is_file:
            content = read_content(driver, ino, node.size)
            for number in range(-(-node.size // CHUNK_BYTES)):
                expected = content.chunk(number)[: node.size - number * CHUNK_BYTES]
                assert layout.chunk((ino, number), driver.device.read) == expected
            named = {number for other, number in chunks_with_content(layout, {}) if other == ino}
            assert {number for number in content.numbers() if any(content.chunk(number))} <= named
