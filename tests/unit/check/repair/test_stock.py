"""What is lost with each block of a volume: only what lay in it. Also when no block is free, and after cuts."""

from __future__ import annotations

import functools
import stat
from random import Random

import pytest

from deferfs.check import check_image
from deferfs.check.claims import runs_of_ones
from deferfs.check.repair import repair_image
from deferfs.crash.states import CrashStates, Shredded
from deferfs.device import MemoryDevice, RecordingDevice
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import FORM_EXTENTS, ROOT_INO
from deferfs.ondisk.node import EXTENT
from deferfs.store.io import run_job
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.volume import namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from tests.examples import examples
from tests.unit.check.image import Image, metadata_blocks
from tests.unit.check.repair.losses import Losses, holdings, losses
from tests.unit.check.repair.outcome import NOW, held, repaired, require_untouched

pytestmark = pytest.mark.compiled

BLOCK_SIZE = 1024
NAMES = 160
SCATTERED = 90
_FILE, _DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


@functools.cache
def volume(*, full: bool = False) -> bytes:
    """A volume with directories and a file of two and three levels; `full`: without a free block."""
    device = MemoryDevice(4 << 20)
    dice, clock = Random(7), iter(range(1, 1 << 40))
    geometry = plan_geometry(
        device.size, block_size=BLOCK_SIZE, uuid=b"what may be lost", hash_key=dice.randbytes(16), now_ns=1,
        journal_bytes=256 * BLOCK_SIZE,
    )  # fmt: skip
    run_job(device, make_filesystem(geometry))
    driver = Driver.open(device, clock=clock.__next__, entropy=lambda: 3)

    def make(directory: int, name: bytes, mode: int) -> int:
        return int(driver.run(namespace.create, driver.volume, directory, name, NewInode(mode)).ino)

    parent = make(ROOT_INO, b"directories", _DIRECTORY)
    for number in range(NAMES):
        make(make(parent, b"directory-%d" % number, _DIRECTORY), b"file", _FILE)
    long = make(ROOT_INO, b"long names", _DIRECTORY)
    scattered = make(long, b"scattered", _FILE)
    for number in range(SCATTERED):
        driver.write(scattered, 2 * number * BLOCK_SIZE, b"%d" % number * 300)
        driver.write(make(long, b"%d-" % number * 40, _FILE), 0, b"%d" % number * 500)
    driver.run(xattrs.setxattr, driver.volume, scattered, b"user.long", b"x" * 3000)
    filling = make(ROOT_INO, b"filling", _FILE)
    driver.close()
    if full:
        _fill(Image(device), filling)
    return device.snapshot()


def _fill(image: Image, ino: int) -> None:
    """Give all free blocks to an empty file."""
    bits = image.block(image.superblock.bitmap_address(0), Bitmap).bits
    runs = runs_of_ones(~bits, 0, image.superblock.blocks)
    logical, entries = 0, []
    for first, end in runs:
        entries.append((logical, EXTENT.pack(first, end - first, 0)))
        logical += end - first
        image.mark(first, end - first, 1)
    image.change_inode(ino, form=FORM_EXTENTS, entries=tuple(entries), size=logical * BLOCK_SIZE, blocks=logical)


def damage(image: Image, block: int, how: str, dice: Random) -> None:
    content = bytearray(image.raw(block))
    if how == "zeros":
        content[:] = bytes(len(content))
    elif how == "rubbish":
        content[:] = dice.randbytes(len(content))
    else:
        at = dice.randrange(0, len(content) - 40)
        content[at : at + 40] = dice.randbytes(40)
    image.put_raw(block, bytes(content))


def lost(original: bytes, image: Image, hit: set[int]) -> Losses:
    return losses(held(original), holdings(image.device.snapshot()), hit)


@pytest.mark.parametrize(("how", "step"), [("zeros", 1), ("rubbish", 4), ("run", 3)])
def test_a_damaged_block_of_metadata_costs_only_its_content(how: str, step: int) -> None:
    """Every `step`-th of them; the usual run draws a part of these, always the same."""
    original, dice = volume(), Random(how)
    blocks = metadata_blocks(original)[::step]
    for block in sorted(dice.sample(blocks, examples(len(blocks)))):
        image = Image(MemoryDevice.from_bytes(original))
        damage(image, block, how, dice)
        repaired(image)
        found = lost(original, image, {block})
        assert not found.names_beyond, block
        assert not found.pieces_beyond, block


@pytest.mark.parametrize("seed", range(examples(12)))
def test_several_damaged_blocks_cost_only_their_content(seed: int) -> None:
    original, dice = volume(), Random(seed)
    image = Image(MemoryDevice.from_bytes(original))
    hit = set(dice.sample(metadata_blocks(original), dice.randint(2, 8)))
    for block in sorted(hit):
        damage(image, block, dice.choice(["zeros", "rubbish", "run"]), dice)
    repaired(image)
    require_untouched(image, original, hit)


def test_every_fifth_block_of_a_full_image_costs_only_its_content() -> None:
    """But there is no place for records that are to be re-created in a lost block of the inode table."""
    original, dice = volume(full=True), Random(1)
    report = check_image(MemoryDevice.from_bytes(original))
    assert report.clean
    assert not report.counts.free_blocks
    sound = Image(MemoryDevice.from_bytes(original))
    blocks = metadata_blocks(original)[::5]
    for block in sorted(dice.sample(blocks, examples(len(blocks)))):
        image = Image(MemoryDevice.from_bytes(original))
        damage(image, block, "rubbish", dice)
        repaired(image)
        found = lost(original, image, {block})
        assert not [name for name in found.names_beyond if sound.locate(name.directory)[0] != block], block
        assert not [piece for piece in found.pieces_beyond if sound.locate(piece.ino)[0] != block], block


@pytest.mark.parametrize("seed", range(examples(5)))
def test_a_cut_repair_loses_no_more_than_a_whole_one(seed: int) -> None:
    original, dice = volume(), Random(seed)
    image = Image(MemoryDevice.from_bytes(original))
    hit = set(dice.sample(metadata_blocks(original), 3))
    for block in sorted(hit):
        damage(image, block, "rubbish", dice)
    start = image.device.snapshot()
    recording = RecordingDevice(image.device)
    repair_image(recording, NOW)
    states = CrashStates(start, recording.records)
    ends = range(len(recording.records) + 1)
    for position in sorted(dice.sample(ends, min(12, len(ends)))):
        cut = Image(MemoryDevice.from_bytes(states.image(position, Shredded(seed))))
        repaired(cut)
        require_untouched(cut, original, hit)
