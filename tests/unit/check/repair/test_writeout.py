"""A repair that is cut off at any write is finished by the next one, and nothing more is lost."""

from __future__ import annotations

from random import Random

import pytest

from deferfs.check import check_image
from deferfs.check.repair import context, recover_log, repair_image
from deferfs.check.repair.writeout import WriteOut
from deferfs.crash.states import CrashStates, Shredded
from deferfs.device import (
    FailingDevice,
    Fault,
    FlushRecord,
    MemoryDevice,
    RecordingDevice,
    Request,
    WriteRecord,
    keep_all,
    keep_none,
)
from deferfs.errors import DeviceError, FsError, ImageError
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import STATE_CLEAN, STATE_ERRORS
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
from tests.unit.check.repair.spoiling import spoil_blocks
from tests.unit.check.sample import SMALL, sample
from tests.unit.volumes import open_driver

CUTS_PER_SEED = examples(24)
HARMLESS_SEED = 11
"""Its damage hits nothing."""


def damaged(seed: int) -> tuple[Image, set[int]]:
    image = sample()
    return image, spoil_blocks(image, Random(seed), sample_metadata())


def recorded_repair(image: Image) -> tuple[RecordingDevice, CrashStates]:
    """A repair with all that it writes, and the states in which a crash may leave the image on the way."""
    start = image.device.snapshot()
    recording = RecordingDevice(image.device)
    repair_image(recording, NOW)
    return recording, CrashStates(start, recording.records)


@pytest.mark.parametrize("seed", [seed for seed in range(14) if seed != HARMLESS_SEED])
def test_a_repair_that_is_cut_off_is_finished_by_the_next(seed: int) -> None:
    image, hit = damaged(seed)
    assert not check_image(image.device).clean
    recording, states = recorded_repair(image)
    dice = Random(seed)
    ends = range(len(recording.records) + 1)
    for position in sorted(dice.sample(ends, min(CUTS_PER_SEED, len(ends)))):
        for choose in (Shredded(seed), Shredded(seed + 1, 7)):
            cut = Image(MemoryDevice.from_bytes(states.image(position, choose)))
            repaired(cut)
            require_untouched(cut, sample_bytes(), hit)


@pytest.mark.parametrize("seed", [1, 4])
def test_errors_are_marked_from_before_the_first_write_to_after_the_last(seed: int) -> None:
    """Whatever of the repair is on the disk: unless all of it is, the image does not look clean."""
    image, _ = damaged(seed)
    recording, states = recorded_repair(image)
    flushes = [at for at, record in enumerate(recording.records) if isinstance(record, FlushRecord)]
    for flush in flushes[1:-2]:  # the first is that of the recovery, the last two are those of the clean superblocks
        superblock = Image(MemoryDevice.from_bytes(states.image(flush + 1, keep_none))).superblock
        assert not superblock.state & STATE_CLEAN
        assert superblock.state & STATE_ERRORS or flush == flushes[0]
    assert image.superblock.state == STATE_CLEAN


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_no_mount_writes_to_a_half_repaired_image(seed: int) -> None:
    image, _ = damaged(seed)
    start = image.device.snapshot()
    recording = RecordingDevice(image.device)
    repair_image(recording, NOW)
    states = CrashStates(start, recording.records)
    home = superblocks_apart(start)
    refused = 0
    for position in range(len(recording.records) + 1):
        cut = states.image(position, keep_none)
        if superblocks_apart(cut) in (home, superblocks_apart(image.device.snapshot())):
            continue  # nothing has been repaired yet, or all of it
        with pytest.raises(ImageError, match="a repair was interrupted: finish it first with deferfs fsck -y"):
            open_driver(MemoryDevice.from_bytes(cut))
        refused += 1
    assert refused


def superblocks_apart(image: bytes) -> bytes:
    """All but the superblocks."""
    parts, at = [], 0
    for offset in SUPERBLOCK_OFFSETS:
        parts.append(image[at:offset])
        at = offset + SUPERBLOCK_BYTES
    return b"".join((*parts, image[at:]))


def test_unreferenced_blocks_are_written_first_and_all_go_through_the_log() -> None:
    image = sample()
    recording = RecordingDevice(image.device)
    out = WriteOut(recording, image.superblock, NOW, through_log=True)
    pages = {address: bytes([address % 251]) * BLOCK_SIZE for address in range(3000, 3100)}
    out.write(pages, {3099})
    homes = [
        record.offset // BLOCK_SIZE
        for record in recording.records
        if isinstance(record, WriteRecord) and record.offset >= 3000 * BLOCK_SIZE
    ]
    assert homes[0] == 3099
    assert sorted(homes) == sorted(pages)
    journal = image.superblock.journal_start, image.superblock.journal_start + image.superblock.journal_blocks
    logged = [r for r in recording.records if journal[0] <= getattr(r, "offset", 0) // BLOCK_SIZE < journal[1]]
    assert logged
    for address, data in pages.items():
        assert image.raw(address) == data
    assert image.superblock.tail_tid > sample().superblock.tail_tid


def kinds(image: Image, recording: RecordingDevice) -> list[str]:
    """What was written, in order: L the log, H a home, S a superblock, | a flush; repeats once."""
    superblock, found = image.superblock, [""]
    for record in recording.records:
        if isinstance(record, FlushRecord):
            kind = "|"
        else:
            block = getattr(record, "offset", 0) // BLOCK_SIZE - superblock.journal_start
            reserved = block + superblock.journal_start < image.fmt.reserved_blocks
            kind = "S" if reserved else "L" if 0 <= block < superblock.journal_blocks else "H"
        if kind != found[-1]:
            found.append(kind)
    return found[1:]


def test_the_order_of_a_repair() -> None:
    """Marked, logged, home, log emptied, which a transaction says, clean: each is on disk before the next begins."""
    image = sample()
    recording = RecordingDevice(image.device)
    out = WriteOut(recording, image.superblock, NOW, through_log=True)
    pages = {address: bytes([address % 251]) * BLOCK_SIZE for address in range(3000, 3100)}
    out.write(pages, set())
    out.finish(clean=True)
    batches = -(-len(pages) // 32)  # what the log of the sample has room for
    assert "".join(kinds(image, recording)) == "S|" + batches * "L|H|S|" + "L|S|S|S|"


def test_the_order_of_a_recovery() -> None:
    image = sample()
    image.change_superblock(state=0, tail_tid=7)
    address = image.locate(SMALL)[0]
    image.log(0, 7, {address: image.raw(address)})
    recording = RecordingDevice(image.device)
    recover_log(recording, NOW)
    assert "".join(kinds(image, recording)) == "H|S|"


def test_an_image_that_cannot_be_written_is_left_to_the_next_repair() -> None:
    image, hit = damaged(3)
    broken = FailingDevice(image.device, Fault(frozenset([Request.WRITE]), skip=6, sticky=True))
    with pytest.raises(DeviceError):
        repair_image(broken, NOW)
    repaired(image)
    require_untouched(image, sample_bytes(), hit)
    require_clean(check_image(image.device))


@pytest.mark.parametrize("seed", range(examples(4)))
def test_pages_that_do_not_fit_into_memory_are_written_early(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, hit = damaged(seed)
    monkeypatch.setattr(context, "CHANGED_BYTES_MAX", 4 * BLOCK_SIZE)
    repaired(image)
    require_untouched(image, sample_bytes(), hit)


@pytest.mark.parametrize("seed", [1, 4])
def test_a_mount_after_an_interrupted_repair_works_or_names_the_remedy(seed: int) -> None:
    recording, states = recorded_repair(damaged(seed)[0])
    refused = 0
    for position in range(len(recording.records) + 1):
        cut = states.image(position, keep_all)
        for read_only in (False, True):
            try:
                open_driver(MemoryDevice.from_bytes(cut), read_only=read_only)
            except (ImageError, FsError) as error:
                assert "deferfs fsck -y" in str(error)  # noqa: PT017 - either outcome is right
                refused += 1
        repaired(Image(MemoryDevice.from_bytes(cut)))
    assert refused
