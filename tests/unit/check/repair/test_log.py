"""What a repair does with the log: replay, drop what is damaged, find the tail that a lost superblock knew."""

from __future__ import annotations

from deferfs.check import check_image
from deferfs.check.repair import mark, recover_log
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import STATE_CLEAN
from tests.unit.check.builder import JOURNAL_BLOCKS
from tests.unit.check.image import Image
from tests.unit.check.repair.outcome import NOW, repaired, require_clean, require_untouched, sample_bytes
from tests.unit.check.sample import BIG, FILES, SMALL, sample


def with_log(image: Image, tail: int, tids: range, *, spoiled: int | None = None) -> int:
    """Transactions that write the block of SMALL again and again, `tids[-1]` with the right content; the position after
    them. The block is damaged at home.
    """
    address = image.locate(SMALL)[0]
    good = image.raw(address)
    position = tail
    for tid in tids:
        start = position
        position = image.log(position, tid, {address: good if tid == tids[-1] else bytes([tid]) * len(good)})
        if tid == spoiled:
            image.spoil(image.superblock.journal_start + (start + 1) % JOURNAL_BLOCKS)
    image.spoil(address)
    return position


def test_recovery_replays_and_empties_the_log() -> None:
    image = sample()
    image.change_superblock(state=0, journal_tail=60, tail_tid=7)
    with_log(image, 60, range(7, 11))
    before = check_image(image.device)
    require_clean(before)
    assert before.counts.transactions == 4
    recover_log(image.device, NOW)
    superblock = image.superblock
    assert (superblock.journal_tail, superblock.tail_tid, superblock.state) == (0, 11, 0)
    report = check_image(image.device)
    require_clean(report)
    assert report.counts.transactions == 0
    mark(image.device, NOW, clean=True)
    assert image.superblock.state == STATE_CLEAN
    require_untouched(image, sample_bytes(), ())


def test_new_transactions_are_numbered_above_the_remains_of_an_interrupted_one() -> None:
    image = sample()
    image.change_superblock(state=0, tail_tid=7)
    end = with_log(image, 0, range(7, 9))
    image.log(end, 9, {image.locate(BIG)[0]: image.raw(image.locate(BIG)[0])})
    image.put_raw(image.superblock.journal_start + end + 2, bytes(image.fmt.block_size))
    recover_log(image.device, NOW)
    assert image.superblock.tail_tid == 10
    require_clean(check_image(image.device))


def test_transactions_after_a_damaged_one_are_dropped() -> None:
    image = sample()
    image.change_superblock(state=0, tail_tid=7)
    with_log(image, 0, range(7, 11), spoiled=9)
    assert "log-gap" in {problem.code for problem in check_image(image.device).problems}
    repaired(image)
    # transaction 8 left the block full of rubbish: its records are gone, whatever 10 held
    assert image.superblock.tail_tid > 10
    require_untouched(image, sample_bytes(), [image.locate(SMALL)[0]])


def test_the_tail_of_a_lost_superblock_is_found() -> None:
    """The superblock that counted is lost; the older one names a tail that has been written over since."""
    image = sample()
    image.change_superblock(state=0, journal_tail=0, tail_tid=7)  # both copies
    newest = image.superblock.next(journal_tail=20, tail_tid=9)
    image.put_superblock(newest, (newest.sequence % 2,))
    with_log(image, 20, range(9, 13))
    image.device.write(SUPERBLOCK_OFFSETS[newest.sequence % 2], bytes(512))
    assert image.superblock.tail_tid == 7
    assert "log-gap" in {problem.code for problem in check_image(image.device).problems}
    repaired(image)
    require_untouched(image, sample_bytes(), ())


def test_transactions_that_do_not_follow_each_other_are_no_chain() -> None:
    """Of what an earlier lap has left, nothing is replayed over newer transactions, though their numbers fit."""
    image = sample()
    image.change_superblock(state=0, journal_tail=0, tail_tid=7)
    newest = image.superblock.next(journal_tail=20, tail_tid=9)
    image.put_superblock(newest, (newest.sequence % 2,))
    address = image.locate(FILES)[0]
    image.log(40, 8, {address: bytes(image.fmt.block_size)})  # of which the end should be where 9 begins
    with_log(image, 20, range(9, 11))
    image.device.write(SUPERBLOCK_OFFSETS[newest.sequence % 2], bytes(512))
    repaired(image)
    require_untouched(image, sample_bytes(), ())


def test_the_log_of_a_clean_image_is_not_replayed() -> None:
    image = sample()
    address = image.locate(FILES)[0]
    image.change_superblock(tail_tid=5)
    image.log(0, 5, {address: bytes(image.fmt.block_size)})
    repaired(image)
    require_untouched(image, sample_bytes(), ())
