"""One wrong bit is found by its checksum, wherever it is; more than one are not taken for it."""

from __future__ import annotations

from random import Random

import pytest

from deferfs.check import check_image
from deferfs.check.repair import recover_log, repair_image
from deferfs.check.repair.bits import correct_block, correct_image
from deferfs.ondisk.format import INODE_BYTES, SUPERBLOCK_OFFSETS, Format
from tests.examples import examples
from tests.unit.check.builder import BLOCK_SIZE
from tests.unit.check.image import Image
from tests.unit.check.repair.outcome import (
    NOW,
    repaired,
    require_clean,
    require_untouched,
    sample_bytes,
    sample_metadata,
)
from tests.unit.check.sample import SMALL, sample

FMT = Format(4096, b"the uuid of this", b"a directory key!")
TAG = 4711


def sealed(size: int) -> bytes:
    return FMT.seal(TAG, bytearray(Random(size).randbytes(size)))


def flipped(data: bytes, *bits: int) -> bytes:
    body = bytearray(data)
    for bit in bits:
        body[bit // 8] ^= 1 << bit % 8
    return bytes(body)


def test_every_bit_of_a_record() -> None:
    record = sealed(INODE_BYTES)
    for bit in range(8 * INODE_BYTES):
        assert correct_block(FMT, TAG, flipped(record, bit)) == record


@pytest.mark.parametrize("size", [1024, 4096, 65536])
def test_bits_of_a_block(size: int) -> None:
    block = sealed(size)
    crc = FMT.checksum(TAG, block)
    for bit in [0, 31, 32, 8 * size - 1, *Random(1).sample(range(8 * size), 40)]:
        assert correct_block(FMT, TAG, flipped(block, bit)) == block
        assert correct_image(FMT, TAG, crc, flipped(block, bit)) == block


@pytest.mark.parametrize("size", [INODE_BYTES, 4096, 65536])
def test_two_wrong_bits_are_never_taken_for_one(size: int) -> None:
    block, dice = sealed(size), Random(2)
    for _ in range(200):
        assert correct_block(FMT, TAG, flipped(block, *dice.sample(range(8 * size), 2))) is None


def test_a_right_or_misplaced_block_is_not_corrected() -> None:
    assert correct_block(FMT, TAG, sealed(1024)) is None
    assert correct_block(FMT, TAG + 1, sealed(1024)) is None
    assert correct_image(FMT, TAG, FMT.checksum(TAG, sealed(1024)), sealed(1024)) is None


def test_one_wrong_bit_costs_nothing() -> None:
    """In any block of metadata: every file, name, time and attribute is as it was."""
    dice, blocks = Random(3), list(sample_metadata())
    for address in sorted(dice.sample(blocks, examples(len(blocks)))):
        image = sample()
        image.flip(address, dice.randrange(8 * BLOCK_SIZE))
        assert not check_image(image.device).clean
        actions = repaired(image).actions
        assert not any("lost" in action or "freed" in action for action in actions)
        require_untouched(image, sample_bytes(), ())


def test_one_wrong_bit_in_each_superblock_that_counts() -> None:
    """The other copy knows nothing of the log that has to be replayed."""
    for bit in (70, 8 * 30 + 1, 8 * 93, 8 * 120 + 5, 8 * 500):
        image = _with_a_moved_tail()
        offset = SUPERBLOCK_OFFSETS[image.superblock.sequence % 2]
        image.device.write(offset, flipped(image.device.read(offset, 512), bit))
        actions = repair_image(image.device, NOW).actions
        assert f"superblock at byte {offset}: one bit was wrong, and is corrected" in actions
        require_clean(check_image(image.device))
        require_untouched(image, sample_bytes(), ())


def _with_a_moved_tail() -> Image:
    """A log of two transactions, whose tail only the newer superblock knows; the older one's is written over."""
    image = sample()
    address = image.locate(SMALL)[0]
    good = image.raw(address)
    image.change_superblock(state=0, journal_tail=0, tail_tid=7)
    newest = image.superblock.next(journal_tail=20, tail_tid=9)
    image.put_superblock(newest, (newest.sequence % 2,))
    end = image.log(20, 9, {address: bytes(len(good))})
    image.log(end, 10, {address: good})
    image.spoil(address)
    return image


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_one_wrong_bit_in_a_logged_transaction(damaged: int) -> None:
    """In its descriptor, its image, its commit record: what follows it is not dropped."""
    image = sample()
    address = image.locate(SMALL)[0]
    good = image.raw(address)
    image.change_superblock(state=0, tail_tid=7)
    following = image.log(0, 7, {address: bytes(len(good))})
    image.log(following, 8, {address: good})
    image.spoil(address)
    image.flip(image.superblock.journal_start + damaged, 8 * 61 + 3)
    assert "log-gap" in {problem.code for problem in check_image(image.device).problems}
    actions = repaired(image).actions
    assert "log: transaction 7: one bit was wrong, and is corrected" in actions
    require_untouched(image, sample_bytes(), ())


def test_a_log_with_two_wrong_bits_in_one_block_is_cut_off_there() -> None:
    image = sample()
    address = image.locate(SMALL)[0]
    image.change_superblock(state=0, tail_tid=7)
    following = image.log(0, 7, {address: image.raw(address)})
    image.log(following, 8, {address: image.raw(address)})
    for bit in (100, 2000):
        image.flip(image.superblock.journal_start + 1, bit)
    before = image.raw(image.superblock.journal_start + 1)
    recover_log(image.device, NOW)
    assert image.raw(image.superblock.journal_start + 1) == before
    assert image.superblock.tail_tid == 9
