"""The check of images with any damage: it ends, never raises, and never misses a damaged block."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.check import Report, check_image
from deferfs.errors import ImageError
from deferfs.ondisk.format import HEADER_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.inode import FIRST_INO, MAGIC
from deferfs.ondisk.superblock import Superblock
from tests.examples import examples
from tests.unit.check.builder import BLOCK_SIZE, BLOCKS, JOURNAL_BLOCKS
from tests.unit.check.image import Image, metadata_blocks
from tests.unit.check.numbers import NUMBERS
from tests.unit.check.sample import BIG_ENTRIES, FAR, FILES, FIRST_IN_CHUNK_1, SMALL, sample

EXAMPLES = settings(max_examples=examples(100))


@functools.cache
def sample_metadata() -> list[int]:
    return metadata_blocks(sample().device.snapshot())


@functools.cache
def sample_places() -> dict[int, tuple[int, int]]:
    """Where the records of the sample's inodes lie, and of some that are free."""
    image = sample()
    inodes = [*range(30), *range(FIRST_IN_CHUNK_1, FIRST_IN_CHUNK_1 + BIG_ENTRIES), FAR]
    return {ino: image.locate(ino) for ino in inodes}


def check(image: Image) -> Report | None:
    """The report, or None when it is no image any more; nothing else may come out."""
    before = image.device.snapshot()
    report: Report | None = None
    try:
        report = check_image(image.device)
        messages = [problem.message for problem in report.problems]
    except ImageError as error:
        messages = [str(error)]
    assert image.device.snapshot() == before
    assert all(message and "\n" not in message for message in messages)
    return report


def test_no_damaged_block_is_missed() -> None:
    assert len(sample_metadata()) > 100
    image = sample()
    for number, address in enumerate(sample_metadata()):
        whole = image.raw(address)
        spoiled = bytearray(whole)
        spoiled[number * 7919 % BLOCK_SIZE] ^= 1 << number % 8
        image.put_raw(address, bytes(spoiled))
        report = check(image)
        assert report is not None
        assert not report.clean, f"block {address}"
        image.put_raw(address, whole)


@EXAMPLES
@given(st.data())
def test_random_damage(data: st.DataObject) -> None:
    """Bit flips, runs of bytes, swapped, repeated and cleared blocks."""
    image = sample()
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.one_of(st.sampled_from(sample_metadata()), st.integers(0, BLOCKS - 1)))
        content = bytearray(image.raw(block))
        kind = data.draw(st.sampled_from(["flip", "run", "swap", "repeat", "clear"]))
        if kind == "flip":
            content[data.draw(st.integers(0, BLOCK_SIZE - 1))] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "run":
            run = data.draw(st.binary(min_size=1, max_size=64))
            at = data.draw(st.integers(0, BLOCK_SIZE - len(run)))
            content[at : at + len(run)] = run
        elif kind == "clear":
            content = bytearray(BLOCK_SIZE)
        else:
            other = data.draw(st.sampled_from(sample_metadata()))
            if kind == "swap":
                image.put_raw(other, bytes(content))
            content = bytearray(sample().raw(other))
        image.put_raw(block, bytes(content))
    check(image)


@EXAMPLES
@given(st.data())
def test_random_fields_under_right_checksums(data: st.DataObject) -> None:
    """What a mistake in the program could write: checksums hold, contents are absurd."""
    image = sample()
    for _ in range(data.draw(st.integers(1, 4))):
        number = struct.pack("<Q", data.draw(NUMBERS))[: data.draw(st.sampled_from([1, 2, 4, 8]))]
        if data.draw(st.booleans()):
            offset = data.draw(st.integers(4, 160))
            place = data.draw(st.sampled_from(list(sample_places().values())))
            image.patch_record(place, offset, number)
        else:
            block = data.draw(st.sampled_from([b for b in sample_metadata() if image.raw(b)[4:8] != MAGIC]))
            offset = data.draw(st.one_of(st.integers(16, HEADER_BYTES), st.integers(4, BLOCK_SIZE - 8)))
            image.patch(block, offset, number)
    check(image)


@EXAMPLES
@given(st.data())
def test_random_superblocks(data: st.DataObject) -> None:
    image = sample()
    numeric = [f.name for f in fields(Superblock) if f.type == "int"]
    changes: dict[str, Any] = data.draw(st.dictionaries(st.sampled_from(numeric), NUMBERS, max_size=3))
    if data.draw(st.booleans()):
        changes["bitmap_regions"] = tuple(data.draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8)))
    superblock = replace(image.superblock, **changes)
    try:
        encoded = superblock.encode()
    except struct.error:
        return  # a number that its field cannot hold
    for offset in SUPERBLOCK_OFFSETS:
        image.device.write(offset, encoded)
    check(image)


@EXAMPLES
@given(st.data())
def test_random_logs(data: st.DataObject) -> None:
    """Logged images of any block, valid by their checksums, with torn and repeated parts."""
    image = sample()
    tail = data.draw(st.integers(0, JOURNAL_BLOCKS - 1))
    image.change_superblock(state=0, journal_tail=tail, tail_tid=1)
    position = tail
    homes = st.one_of(st.sampled_from(sample_metadata()), NUMBERS)
    contents: st.SearchStrategy[Callable[[], bytes]] = st.sampled_from(
        [lambda: bytes(BLOCK_SIZE), lambda: image.raw(sample_metadata()[0]), lambda: image.raw(sample_metadata()[-1])]
    )
    for tid in range(1, data.draw(st.integers(1, 5))):
        images = data.draw(st.dictionaries(homes, contents, max_size=5))
        revokes = data.draw(st.lists(homes, max_size=3))
        position = image.log(position, tid, {home: make() for home, make in images.items()}, tuple(revokes))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(tail, position))
        image.spoil(image.superblock.journal_start + at % JOURNAL_BLOCKS)
    check(image)


def test_a_record_in_the_place_of_another_one_is_reported() -> None:
    """A record in the place of another one, sealed for it, is always noticed."""
    image = sample()
    for ino in (SMALL, FILES, FAR):
        for other in range(1, FIRST_INO + 18):
            if other != ino:
                copy = sample()
                copy.put_inode(image.inode(other), at=ino)
                report = check(copy)
                assert report is not None
                assert not report.clean
