"""Epochs give the states of the disk model, each once, with the positions at which it can be left."""

from __future__ import annotations

import random
from collections.abc import Sequence

from deferfs.crash.epochs import CrashState, Epoch, choices, epochs, sampled_choices
from deferfs.crash.pages import patched, split
from deferfs.crash.states import CrashStates, Subset
from deferfs.device import SECTOR_BYTES, DiscardRecord, FailedFlushRecord, FlushRecord, Record, WriteRecord

PAGE = 1024
IMAGE = random.Random(1).randbytes(16 * PAGE)


def sector(letter: str) -> bytes:
    return letter.encode() * SECTOR_BYTES


def state_of(records: Sequence[Record], choice: Subset, number: int = 0) -> CrashState:
    found = list(epochs(records, PAGE))[number].state(split(IMAGE, PAGE), choice)
    assert found is not None
    return found


def image_of(state: CrashState, before: Epoch | None = None) -> bytes:
    """The image of a state of the first epoch, or of the one that follows `before`."""
    pages = split(IMAGE, PAGE)
    if before is not None:
        complete = before.state(pages, Subset(-1))
        assert complete is not None
        pages = patched(pages, complete.patch)
    return b"".join(patched(pages, state.patch))


def test_states_are_those_of_the_plain_model() -> None:
    """Random logs with overlapping and unaligned writes, pages written in two, discards, torn and trashed sectors."""
    dice = random.Random(2)
    records: list[Record] = []
    for _ in range(80):
        offset = dice.randrange(12 * PAGE)
        kind = dice.randrange(8)
        if kind in (2, 3):
            first, length = dice.randrange(12) * PAGE, dice.randrange(1, 4) * PAGE
            content, at = dice.randbytes(length), dice.randrange(1, length)
            records += [WriteRecord(first, content[:at]), WriteRecord(first + at, content[at:])]
        elif kind == 0:
            records.append(FailedFlushRecord() if len(records) > 60 else FlushRecord())
        elif kind == 1:
            records.append(DiscardRecord(offset, 700))
        else:
            records.append(WriteRecord(offset, dice.randbytes(dice.choice((1, 512, 700, 3000)))))
    plain = CrashStates(IMAGE, records)
    pages = split(IMAGE, PAGE)
    compared = 0
    for epoch in epochs(records, PAGE):
        for choice in choices(epoch, dice, torn=4):
            state = epoch.state(pages, choice)
            assert state is not None
            image = b"".join(patched(pages, state.patch))
            assert image == plain.image(state.earliest, choice) == plain.image(state.latest, choice)
            compared += 1
        complete = epoch.state(pages, Subset(-1))
        assert complete is not None
        pages = patched(pages, complete.patch)
    assert compared > 300


def test_a_state_can_be_left_from_its_last_write_to_the_flush() -> None:
    records: list[Record] = [WriteRecord(0, sector("a")), WriteRecord(PAGE, sector("a"))]
    records += [WriteRecord(2 * PAGE, sector("a")), FlushRecord()]
    assert (state_of(records, Subset(0b001)).earliest, state_of(records, Subset(0b001)).latest) == (1, 3)
    assert (state_of(records, Subset(0b101)).earliest, state_of(records, Subset(0)).earliest) == (3, 0)


def test_a_flush_ends_an_epoch() -> None:
    records: list[Record] = [WriteRecord(0, sector("a")), FlushRecord(), WriteRecord(PAGE, sector("b"))]
    first, second = epochs(records, PAGE)
    assert [(e.first, e.end, len(e.writes)) for e in (first, second)] == [(0, 1, 1), (2, 3, 1)]


def test_a_flush_after_a_failed_one_proves_nothing() -> None:
    records: list[Record] = [WriteRecord(0, sector("a")), FlushRecord(), WriteRecord(PAGE, sector("b"))]
    records += [FailedFlushRecord(), FlushRecord(), WriteRecord(2 * PAGE, sector("c")), FlushRecord()]
    first, second = epochs(records, PAGE)
    assert (first.end, second.first, second.end, len(second.writes)) == (1, 2, 7, 2)
    plain = CrashStates(IMAGE, records)
    assert [plain.last_flush(position) for position in (1, 2, 4, 5, 7, 2)] == [0, 2, 2, 2, 2, 2]
    assert plain.image(7, Subset(0b10)) == image_of(state_of(records, Subset(0b10), 1), first)


def test_fua_orders_only_itself() -> None:
    """What was written before a FUA write may be lost although it is there; it is there when something later is."""
    records: list[Record] = [
        WriteRecord(0, sector("a")),
        WriteRecord(PAGE, sector("f"), fua=True),
        WriteRecord(2 * PAGE, sector("b")),
    ]
    (epoch,) = epochs(records, PAGE)
    pages = split(IMAGE, PAGE)
    assert epoch.state(pages, Subset(0b101)) is None, "a write after it, without it"
    lost = epoch.state(pages, Subset(0b001))
    assert lost is not None
    assert (lost.earliest, lost.latest) == (1, 1), "only while it was not complete"
    alone = epoch.state(pages, Subset(0b010))
    assert alone is not None
    assert (alone.earliest, alone.latest) == (2, 3)
    assert image_of(alone) == CrashStates(IMAGE, records).image(2, Subset(0))


def test_a_fua_write_wins_over_older_ones_to_the_same_place() -> None:
    records: list[Record] = [WriteRecord(0, sector("a")), WriteRecord(0, sector("f"), fua=True)]
    assert CrashStates(IMAGE, records).image(2, Subset(1))[:SECTOR_BYTES] == sector("f")
    assert image_of(state_of(records, Subset(0b11)))[:SECTOR_BYTES] == sector("f")


def test_a_trashed_sector_is_neither_old_nor_new() -> None:
    records: list[Record] = [WriteRecord(0, sector("a") + sector("b"))]
    state = state_of(records, Subset(0, 0, 0b11, 0b10))
    found = image_of(state)
    assert found[:SECTOR_BYTES] == sector("a")
    assert found[SECTOR_BYTES : 2 * SECTOR_BYTES] not in (sector("b"), IMAGE[SECTOR_BYTES : 2 * SECTOR_BYTES])
    assert state.trashed == {1}


def kept(epoch: Epoch) -> set[int]:
    return {c.kept for c in choices(epoch, random.Random(1)) if c.torn < 0}


def test_few_writes_are_taken_exhaustively() -> None:
    (epoch,) = epochs([WriteRecord(at * PAGE, sector("a")) for at in range(10)], PAGE)
    assert kept(epoch) == set(range(1 << 10))


def test_many_writes_have_all_prefixes_and_single_losses() -> None:
    (epoch,) = epochs([WriteRecord(at * 256, b"a") for at in range(40)], PAGE)
    everything = (1 << 40) - 1
    wanted = {(1 << n) - 1 for n in range(41)} | {everything ^ 1 << n for n in range(40)} | {1 << n for n in range(40)}
    found = kept(epoch)
    assert wanted < found
    assert len(found) < 400


def test_a_short_write_is_torn_in_every_way() -> None:
    (epoch,) = epochs([WriteRecord(0, sector("a") * 6)], PAGE)
    torn = {c.sectors for c in choices(epoch, random.Random(1)) if c.torn == 0}
    assert torn >= set(range(1, (1 << 6) - 1))


def test_the_same_seed_gives_the_same_choices() -> None:
    (epoch,) = epochs([WriteRecord(at * 700, bytes(700)) for at in range(20)], PAGE)
    assert list(choices(epoch, random.Random(3))) == list(choices(epoch, random.Random(3)))


def test_some_choices_are_a_fair_sample() -> None:
    """A caller that stops early has seen nothing and everything, the first writes and the last, torn ones, too."""
    (epoch,) = epochs([WriteRecord(at * PAGE, sector("a") * 4) for at in range(10)], PAGE)
    found = list(sampled_choices(epoch, random.Random(1), torn=24, at_most=120))
    assert (found[0], found[1]) == (Subset(0), Subset((1 << 10) - 1))
    assert len(found) == 122
    for index in range(10):
        times = sum(bool(choice(index, 4)) for choice in found[:40])
        assert 8 < times < 32
    assert any(choice.torn >= 0 for choice in found)
    few = list(sampled_choices(epoch, random.Random(1), torn=24, at_most=3))
    assert few[:2] == found[:2] and len(few) == 5


def test_several_writes_are_torn_at_once() -> None:
    (epoch,) = epochs([WriteRecord(at * PAGE, sector("a") * 4) for at in range(3)], PAGE)
    shredded = [choice for choice in choices(epoch, random.Random(1)) if choice.shred]
    assert shredded
    torn = [sum(0 < choice(index, 4) & 15 < 15 for index in range(3)) for choice in shredded]
    assert max(torn) > 1
    again = [choice for choice in choices(epoch, random.Random(1)) if choice.shred]
    assert again == shredded


def test_of_several_fua_writes_that_are_lost_the_first_bounds_the_crash() -> None:
    records: list[Record] = [WriteRecord(0, sector("a"))]
    records += [WriteRecord(page * PAGE, sector("f"), fua=True) for page in (1, 2)]
    state = state_of(records, Subset(0b001))
    assert (state.earliest, state.latest) == (1, 1)
