"""Spare superblocks: where they lie, and what proves one."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from deferfs.errors import CorruptionError, ImageError
from deferfs.limits import GIB, KIB, MIB, SPARES_MAX
from deferfs.ondisk.spare import (
    HEAD_BYTES,
    STEP_BYTES,
    choose_places,
    encode_spare,
    nominal_places,
    open_spare,
    places_on,
    spare_head,
)
from deferfs.ondisk.superblock import STATE_CLEAN, Superblock

FIXED = 100
"""Blocks at the beginning that are in use."""
BLOCK_SIZES = [1 << n for n in range(10, 17)]


def superblock(size_bytes: int, block_size: int = 4 * KIB) -> Superblock:
    return Superblock(
        b"u" * 16, b"label", block_size, size_bytes // block_size, 100, 300, 401, ((90, 10),), b"k" * 16, 77,
        sequence=9, journal_tail=5, tail_tid=88, written_ns=99, mounts=4,
    )  # fmt: skip


def test_the_places() -> None:
    assert nominal_places(100 * MIB) == [1 * MIB, 3 * MIB, 9 * MIB, 27 * MIB, 81 * MIB]
    assert len(nominal_places(1 << 60)) == SPARES_MAX - 1


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("size", [8 * MIB, 16 * MIB + 12345, 100 * MIB, 8 * GIB, 1 << 45])
def test_a_filesystem_has_spares_that_a_search_finds_without_knowing_it(block_size: int, size: int) -> None:
    found = superblock(size, block_size)
    spares = choose_places(found, (), lambda address: address >= FIXED)
    assert 1 <= len(spares) <= SPARES_MAX
    assert spares == sorted(set(spares))
    offsets = [address * block_size for address in spares]
    assert all(offset % STEP_BYTES == 0 and offset + block_size <= found.blocks * block_size for offset in offsets)
    moved = [offset for offset in offsets if offset not in places_on(size)]
    assert all(offset < FIXED * block_size + STEP_BYTES for offset in moved), "only those beside the fixed areas"
    assert offsets[-1] in places_on(size)


def test_a_small_filesystem_has_none() -> None:
    assert choose_places(superblock(8 * MIB - 1), (), lambda _: True) == []


def test_a_place_in_use_gives_way_to_the_next_free_one() -> None:
    used = {256, 272, 768, *range(2304, 4096)}
    found = choose_places(superblock(16 * MIB), (), lambda address: address not in used)
    assert found == [288, 784]  # nothing is free behind 9 MiB, nor at the end


def test_spares_that_are_there_are_kept() -> None:
    found = choose_places(superblock(16 * MIB), (304, 4080), lambda _: True)
    assert found == [304, 768, 2304, 4080]
    assert choose_places(superblock(16 * MIB), found, lambda _: False) == found


def test_the_content_of_a_spare() -> None:
    spared = superblock(16 * MIB)
    data = encode_spare(spared, 256)
    assert len(data) == 4096
    assert spare_head(data[:HEAD_BYTES]) == open_spare(spared.format, 256, data) == spared.spare_form()
    said = spared.spare_form()
    assert (said.sequence, said.state, said.journal_tail, said.tail_tid, said.mounts) == (0, 0, 0, 1, 0)
    assert replace(spared, state=STATE_CLEAN, journal_tail=7, written_ns=8).spare_form() == said


def test_a_spare_proves_its_place_and_every_byte() -> None:
    spared = superblock(16 * MIB)
    data = encode_spare(spared, 256)
    with pytest.raises(CorruptionError, match="misplaced"):
        open_spare(spared.format, 512, data)
    for at in (40, 600, 4095):
        with pytest.raises(CorruptionError, match="checksum"):
            open_spare(spared.format, 256, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ImageError, match="no spare"):
        spare_head(bytes(HEAD_BYTES))


def test_the_superblock_names_them() -> None:
    spared = replace(superblock(16 * MIB), spares=tuple(range(256, 256 + 16 * SPARES_MAX, 16)))
    assert Superblock.decode(spared.encode()) == spared
    assert struct.unpack_from("<2Q", spared.encode(), 312) == (256, 272)


def test_no_file_lies_in_a_spare() -> None:
    spared = replace(superblock(16 * MIB), spares=(768,))
    assert spared.may_hold(760, 8)
    assert not spared.may_hold(760, 9)
    assert not spared.may_hold(768, 1)
    assert spared.may_hold(769, 3)
