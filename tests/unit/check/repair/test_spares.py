"""No superblock is left: a spare one has the geometry, the log says what it is worth, and no file is lost."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from deferfs.check import check_image
from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.log import find_log, newest_chain
from deferfs.check.repair import add_spares, repair_image
from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.spares import name_spares
from deferfs.check.report import Findings
from deferfs.check.spares import find_spares
from deferfs.check.superblocks import read_superblock
from deferfs.device import MemoryDevice
from deferfs.errors import ImageError
from deferfs.limits import KIB, MIB
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.spare import encode_spare, nominal_places
from deferfs.ondisk.superblock import COMPATIBLE_SPARES
from deferfs.store.io import run_job
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.store.recovery import read_superblock as read_for_a_mount
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from tests.unit.check.image import Image
from tests.unit.check.repair.outcome import NOW, repaired, require_clean, require_untouched, sample_bytes
from tests.unit.check.sample import FILES, SMALL, sample
from tests.unit.volumes import FILE, ROOT, UUID, fresh_device, open_driver, settle

HEAD = bytes(68 * KIB)
SIZES = {1 * KIB: 16 * MIB, 2 * KIB: 16 * MIB, 4 * KIB: 16 * MIB, 8 * KIB: 24 * MIB, 16 * KIB: 24 * MIB,
         32 * KIB: 40 * MIB, 64 * KIB: 64 * MIB}  # fmt: skip


def fill(driver: Driver, first: int, count: int) -> dict[bytes, bytes]:
    """Files of different lengths; what they hold."""
    made: dict[bytes, bytes] = {}
    for number in range(first, first + count):
        name, content = b"file %d" % number, bytes([number % 251]) * (number * 997 % 30_000)
        ino = driver.run(namespace.create, driver.volume, ROOT, name, NewInode(FILE)).ino
        driver.write(ino, 0, content)
        made[name] = content
    return made


def contents(driver: Driver) -> dict[bytes, bytes]:
    entries = driver.run(lambda plan: list(namespace.readdir(plan, driver.volume, ROOT, 2)))
    files = {entry.name: entry.ino for entry in entries if stat.S_ISREG(entry.file_type << 12)}
    return {name: driver.read(ino, 0, 1 << 20) for name, ino in files.items()}


@pytest.mark.parametrize("ending", ["closed", "crashed", "crashed after a checkpoint", "fresh"])
@pytest.mark.parametrize("block_size", SIZES)
def test_every_file_is_there_when_the_first_68_kib_are_gone(block_size: int, ending: str) -> None:
    device = fresh_device(SIZES[block_size], block_size=block_size)
    made: dict[bytes, bytes] = {}
    if ending != "fresh":
        driver = open_driver(device)
        made = fill(driver, 0, 100)
        driver.commit()
        if ending == "crashed after a checkpoint":
            settle(driver)
        gone = [driver.run(namespace.unlink, driver.volume, ROOT, b"file %d" % number) for number in range(0, 60, 2)]
        made = {name: content for name, content in made.items() if int(name[5:]) >= 60 or int(name[5:]) % 2}
        assert gone
        driver.collect()
        made |= fill(driver, 1000, 40)
        driver.commit()
        if ending == "closed":
            driver.close()
    image = MemoryDevice.from_bytes(device.snapshot())
    image.write(0, HEAD)
    with pytest.raises(ImageError, match="fsck -y"):
        run_job(image, read_for_a_mount(image.size))
    assert "superblock-lost" in {problem.code for problem in check_image(image).problems}
    report = repair_image(image, NOW).report
    require_clean(report)
    require_clean(check_image(image))
    again = open_driver(image)
    assert contents(again) == made
    fill(again, 2000, 20)
    again.close()
    require_clean(check_image(image))


def lose_both(image: Image) -> None:
    for offset in SUPERBLOCK_OFFSETS:
        image.device.write(offset, bytes(512))


def test_the_log_that_is_not_at_home_is_replayed() -> None:
    image = sample()
    address = image.locate(SMALL)[0]
    good = image.raw(address)
    image.change_superblock(state=0, journal_tail=20, tail_tid=9)
    end = image.log(20, 9, {address: bytes([9]) * len(good)}, tail_tid=9)
    image.log(end, 10, {address: good}, tail_tid=9)
    image.spoil(address)
    lose_both(image)
    assert check_image(image.device).counts.transactions == 2
    repaired(image)
    assert image.superblock.tail_tid > 10
    require_untouched(image, sample_bytes(), ())


def test_a_log_that_is_at_home_counts_as_empty() -> None:
    image = sample()
    address = image.locate(SMALL)[0]
    image.log(0, 5, {address: bytes(image.fmt.block_size)})
    image.log(3, 6, {address: image.raw(address)})
    lose_both(image)
    report = check_image(image.device)
    assert report.counts.transactions == 0
    assert [problem.code for problem in report.problems] == ["superblock-lost"]
    repaired(image)
    require_untouched(image, sample_bytes(), ())


def test_nothing_older_than_the_tail_is_replayed() -> None:
    """Transaction 8 logged a block that has been written past the log since, as a repair does."""
    image = sample()
    small, other = image.locate(SMALL)[0], image.locate(FILES)[0]
    assert small != other
    good = image.raw(small)
    end = image.log(0, 8, {other: bytes(image.fmt.block_size)}, tail_tid=8)
    image.log(end, 9, {small: good}, tail_tid=9)
    image.spoil(small)
    lose_both(image)
    repaired(image)
    require_untouched(image, sample_bytes(), ())


def test_a_transaction_dropped_by_a_repair_is_not_replayed_later() -> None:
    """A transaction behind a damaged one is whole, and is dropped with it; nothing else is there to be repaired."""
    image = sample()
    repaired(image)
    before, tid = image.device.snapshot(), image.superblock.tail_tid
    address, other = image.locate(SMALL)[0], image.locate(FILES)[0]
    image.change_superblock(state=0, journal_tail=20, tail_tid=tid)
    end = image.log(20, tid, {address: image.raw(address)}, tail_tid=tid)
    image.spoil(image.superblock.journal_start + 21)
    image.log(end, tid + 1, {other: bytes(image.fmt.block_size)}, tail_tid=tid)
    repaired(image)
    lose_both(image)
    repaired(image)
    behind = (image.superblock.journal_start + image.superblock.journal_blocks) * image.fmt.block_size
    assert image.device.snapshot()[behind:] == before[behind:]


def test_a_commit_names_the_oldest_transaction_that_is_not_at_home() -> None:
    driver = open_driver(fresh_device(16 * MIB, block_size=4 * KIB))
    for checkpoints in (0, 0, 1, 0):
        fill(driver, driver.volume.store.journal.running.tid * 10, 3)
        driver.commit()
        superblock = driver.volume.store.superblock
        context = Context(driver.device, superblock, Findings(), Claims(0))
        assert newest_chain(context) == (superblock.journal_tail, superblock.tail_tid)
        if checkpoints:
            settle(driver)
    assert driver.volume.store.superblock.tail_tid > 1
    assert find_log(context).tail_tid == superblock.tail_tid


def test_a_torn_last_transaction_is_no_obstacle() -> None:
    image = sample()
    address = image.locate(SMALL)[0]
    end = image.log(0, 7, {address: image.raw(address)}, tail_tid=7)
    image.log(end, 8, {address: bytes(image.fmt.block_size)}, tail_tid=7)
    image.put_raw(image.superblock.journal_start + end + 2, bytes(image.fmt.block_size))
    image.spoil(address)
    lose_both(image)
    repaired(image)
    assert image.superblock.tail_tid > 8
    require_untouched(image, sample_bytes(), ())


# --- which spare ---
def test_the_spare_given_by_its_byte_is_used() -> None:
    image = sample()
    *_, last = image.superblock.spares
    offset = last * 1024
    report = check_image(image.device, spare=offset)
    assert [problem.where for problem in report.problems] == [{"offset": offset}]
    repair_image(image.device, NOW, spare=offset)
    require_clean(check_image(image.device))
    with pytest.raises(ImageError, match=f"no spare superblock at byte {offset + 65536}"):
        check_image(image.device, spare=offset + 65536)
    require_untouched(image, sample_bytes(), ())


def test_a_spare_away_from_its_place_is_found_by_a_scan() -> None:
    image = sample()
    elsewhere = 64 * 100
    for address in image.superblock.spares:
        image.put_raw(address, bytes(1024))
    image.put_raw(elsewhere, encode_spare(image.superblock, elsewhere))
    lose_both(image)
    assert [spare.offset for spare in find_spares(image.device)] == [elsewhere * 1024]
    repaired(image)
    require_untouched(image, sample_bytes(), ())


def test_a_spare_of_an_older_filesystem_is_not_taken() -> None:
    """It was made with another journal and another UUID, and it was not wiped."""
    image = sample()
    first, *_ = image.superblock.spares
    old = replace(image.superblock, uuid=b"another filesys!", journal_blocks=90, created_ns=0)
    image.put_raw(first, encode_spare(old, first))
    lose_both(image)
    repaired(image)
    assert image.superblock.uuid == image.fmt.uuid != old.uuid
    require_untouched(image, sample_bytes(), ())


def test_a_spare_does_not_replace_another_filesystem_made_over_it() -> None:
    image = sample()
    image.device.write(0, HEAD)
    image.device.write(0x438, b"\x53\xef")
    with pytest.raises(ImageError, match="not a deferfs image but an ext2") as caught:
        repair_image(image.device, NOW)
    assert f"fsck -b {image_spare(image)}" in str(caught.value)
    with pytest.raises(ImageError, match="no superblock found"):
        run_job(image.device, read_for_a_mount(image.device.size))


def image_spare(image: Image) -> int:
    return find_spares(image.device)[0].offset


def test_mkfs_leaves_no_spare_of_an_earlier_filesystem() -> None:
    """Also where only the older superblock knows of it, and behind the end of the new filesystem."""
    image = sample()
    elsewhere = 64 * 100
    image.change_superblock(spares=(*image.superblock.spares, elsewhere))
    image.put_spares()
    device = image.device
    assert len(find_spares(device)) == len(image.superblock.spares)
    geometry = plan_geometry(4 * MIB, block_size=4096, uuid=UUID, hash_key=b"k" * 16, now_ns=9)
    run_job(device, make_filesystem(geometry, device_bytes=device.size))
    assert not geometry.superblock.spares
    assert not find_spares(device)
    device.write(0, HEAD)
    with pytest.raises(ImageError, match="no superblock found"):
        read_superblock(device, Findings())


def test_nothing_is_written_to_a_spare_before_the_end() -> None:
    image = sample()
    repair = RepairContext(image.device, image.superblock, NOW, spill=lambda _: None)
    name_spares(repair)
    assert all(repair.stock.taken[address] for address in image.superblock.spares)


# --- images of older programs ---
def old_device(size: int = 16 * MIB) -> MemoryDevice:
    """An image without spares, as an older program made it."""
    device = fresh_device(size, block_size=4 * KIB)
    image = Image(device)
    for address in image.superblock.spares:
        image.mark(address, 1, 0)
        image.put_raw(address, b"\xdb" * 4096)
    image.change_superblock(spares=(), compatible=0)
    require_clean(check_image(device))
    return device


def test_an_old_image_gets_its_spares() -> None:
    device = old_device()
    driver = open_driver(device)
    made = fill(driver, 0, 50)
    driver.close()
    text = add_spares(device, read_superblock(device, Findings()), NOW)
    assert text is not None
    require_clean(check_image(device))
    superblock = Image(device).superblock
    assert superblock.spares
    assert superblock.compatible & COMPATIBLE_SPARES
    assert str(superblock.spares[0] * 4096) in text
    assert add_spares(device, superblock, NOW) is None
    device.write(0, HEAD)
    require_clean(repair_image(device, NOW).report)
    assert contents(open_driver(device)) == made


def test_a_spare_does_not_take_a_block_that_a_file_holds() -> None:
    device = old_device()
    driver = open_driver(device)
    ino = driver.run(namespace.create, driver.volume, ROOT, b"large", NewInode(FILE)).ino
    content = bytes(range(256)) * 4 * KIB * 8
    driver.write(ino, 0, content)
    driver.close()
    repair_image(device, NOW)
    superblock = Image(device).superblock
    offsets = [address * 4096 for address in superblock.spares]
    assert not set(nominal_places(9 * MIB)) & set(offsets)
    assert offsets
    require_clean(check_image(device))
    again = open_driver(device)
    found = again.run(namespace.lookup, again.volume, ROOT, b"large")
    assert again.read(found.ino, 0, len(content)) == content


def test_a_full_image_gets_no_spares() -> None:
    device = old_device()
    image = Image(device)
    bits = image.block(image.superblock.bitmap_address(0), Bitmap).bits
    free = [address for address in range(0, image.superblock.blocks, 16) if not bits[address]]
    for address in free:
        image.mark(address, 1, 1)
    assert add_spares(device, image.superblock, NOW) is None
    assert not Image(device).superblock.spares
