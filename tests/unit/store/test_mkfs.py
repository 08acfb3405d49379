from __future__ import annotations

import random
import stat

import pytest

from deferfs.check import check_image
from deferfs.check.catalogue import SUPERBLOCK_COPY
from deferfs.crash.epochs import choices, epochs
from deferfs.crash.pages import PageDevice, patched, split
from deferfs.crash.states import Subset
from deferfs.device import MemoryDevice, RecordingDevice
from deferfs.errors import ImageError, UsageError
from deferfs.limits import KIB, LABEL_BYTES_MAX, MIB
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import FIRST_INO, ROOT_INO
from deferfs.store.io import Flush, Write, perform, run_job
from deferfs.store.mkfs import Geometry, journal_bytes_default, make_filesystem, plan_geometry
from deferfs.store.recovery import read_superblock
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode
from tests.unit.volumes import BLOCK_SIZES, HASH_KEY, UUID, fresh_device, image_bytes, names, open_driver, record


def geometry(
    size: int, block_size: int = KIB, *, journal_bytes: int | None = None, label: bytes = b"label"
) -> Geometry:
    return plan_geometry(
        size,
        block_size=block_size,
        uuid=UUID,
        hash_key=HASH_KEY,
        now_ns=77,
        journal_bytes=journal_bytes,
        label=label,
    )


@pytest.mark.parametrize("block_size", [KIB << shift for shift in range(7)])
def test_regions_follow_one_another(block_size: int) -> None:
    planned = geometry(image_bytes(block_size), block_size)
    superblock = planned.superblock
    ((bitmaps, count),) = superblock.bitmap_regions
    assert bitmaps == superblock.format.reserved_blocks
    assert count == superblock.groups
    assert superblock.journal_start == bitmaps + count
    assert planned.inode_bitmap == superblock.journal_start + superblock.journal_blocks
    assert superblock.inode_root == planned.inode_bitmap + 1
    assert planned.first_free == superblock.inode_root + superblock.format.chunk_blocks
    assert (superblock.uuid, superblock.label, superblock.created_ns, superblock.clean) == (UUID, b"label", 77, True)


@pytest.mark.parametrize(
    ("size", "journal"), [(1 * MIB, 64 * KIB), (256 * MIB, 16 * MIB), (1 << 30, 64 * MIB), (1 << 40, 64 * MIB)]
)
def test_the_default_journal(size: int, journal: int) -> None:
    assert journal_bytes_default(size) == journal


@pytest.mark.parametrize(
    ("size", "block_size", "options", "message"),
    [
        (8 * MIB, 512, {}, "power of two"),
        (8 * MIB, 3000, {}, "power of two"),
        (8 * MIB, 128 * KIB, {}, "power of two"),
        (8 * MIB, 0, {}, "power of two"),
        (8 * MIB, KIB, {"label": b"x" * (LABEL_BYTES_MAX + 1)}, "label is longer"),
        (8 * MIB, KIB, {"journal_bytes": 255 * KIB}, "at least 256 blocks"),
        (8 * MIB, KIB, {"journal_bytes": 8 * MIB}, "size too small"),
        (0, KIB, {}, "size too small"),
        (300 * KIB, KIB, {}, "size too small"),
        (16 * MIB, 64 * KIB, {}, "size too small"),
    ],
)
def test_impossible_geometries_are_refused(
    size: int, block_size: int, options: dict[str, int | bytes], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        geometry(size, block_size, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_the_smallest_size_named_in_the_refusal_works(block_size: int) -> None:
    with pytest.raises(UsageError) as caught:
        geometry(0, block_size)
    smallest = int(str(caught.value).split()[-3])
    with pytest.raises(UsageError):
        geometry(smallest - block_size, block_size)
    device = MemoryDevice(smallest)
    run_job(device, make_filesystem(geometry(smallest, block_size)))
    assert names(open_driver(device)) == []


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("extra", [0, 7])
def test_the_bitmaps_agree_with_the_layout(block_size: int, extra: int) -> None:
    size = max(image_bytes(block_size), 9 * MIB) + extra * block_size + 5
    planned = geometry(size, block_size)
    device = MemoryDevice(size)
    run_job(device, make_filesystem(planned))
    superblock, fmt = planned.superblock, planned.superblock.format
    used = 0
    for group in range(superblock.groups):
        address = superblock.bitmap_address(group)
        bitmap = Bitmap.decode(fmt, address, device.read(address * block_size, block_size))
        assert bitmap.owner == group
        used += bitmap.bits.count(1)
    assert superblock.groups * fmt.bits_per_bitmap - used == superblock.blocks - planned.first_free - len(
        superblock.spares
    )


def test_the_root_directory() -> None:
    device = MemoryDevice(8 * MIB)
    run_job(device, make_filesystem(geometry(8 * MIB), uid=12, gid=34))
    driver = open_driver(device)
    root = record(driver, ROOT_INO)
    assert (root.mode, root.uid, root.gid, root.nlink) == (stat.S_IFDIR | 0o755, 12, 34, 2)
    assert (root.parent, root.atime, root.mtime, root.ctime, root.crtime) == (ROOT_INO, 77, 77, 77, 77)
    assert driver.volume.store.inodes.used == FIRST_INO


def test_old_contents_do_not_show_through() -> None:
    size = 8 * MIB
    device = MemoryDevice.from_bytes(b"\xff" * size)
    run_job(device, make_filesystem(geometry(size)))
    assert names(open_driver(device)) == []
    older = fresh_device(size)
    assert run_job(older, read_superblock(size)).uuid == UUID


def test_both_superblocks_are_written_last_behind_a_flush() -> None:
    requests = list(make_filesystem(geometry(8 * MIB)))
    assert [type(request) for request in requests[-4:]] == [Flush, Write, Write, Flush]
    assert [request.offset for request in requests[-3:-1] if isinstance(request, Write)] == [0, 65536]
    assert sum(isinstance(request, Flush) for request in requests) == 4


def test_the_spare_superblocks_are_written_when_all_else_is_there() -> None:
    planned = geometry(8 * MIB)
    requests = list(make_filesystem(planned))
    spares = planned.superblock.spares
    assert len(spares) >= 2
    assert isinstance(requests[-5 - len(spares)], Flush)
    written = [request.offset for request in requests[-4 - len(spares) : -4] if isinstance(request, Write)]
    assert written == [address * KIB for address in spares]


def test_an_interrupted_mkfs_leaves_no_image_that_looks_usable() -> None:
    old = fresh_device(8 * MIB)
    requests = list(make_filesystem(geometry(8 * MIB)))
    for cut in (2, 4, len(requests) - 4, len(requests) - 3):
        device = MemoryDevice.from_bytes(old.snapshot())
        for request in requests[:cut]:
            perform(device, request)
        with pytest.raises(ImageError):
            run_job(device, read_superblock(device.size))


def test_a_power_failure_leaves_the_old_filesystem_or_the_new_one_or_none() -> None:
    """Whatever of the writes has arrived: what can be mounted is whole. Both have the same UUID, so that each other's
    blocks look sound.
    """
    size = 1 * MIB
    device = fresh_device(size)
    driver = open_driver(device)
    for number in range(20):
        driver.run(namespace.create, driver.volume, ROOT_INO, b"%d" % number, NewInode(stat.S_IFREG | 0o600))
    driver.close()
    recording = RecordingDevice(device)
    pages = split(device.snapshot(), KIB)
    run_job(recording, make_filesystem(geometry(size), discard_bytes=size))
    usable = 0
    for epoch in epochs(recording.records, KIB):
        for choice in choices(epoch, random.Random(1), torn=2):
            state = epoch.state(pages, choice)
            assert state is not None
            image = PageDevice(pages, state.patch)
            try:
                run_job(image, read_superblock(size))
            except ImageError:
                continue
            usable += 1
            # one copy of the superblock may be gone
            problems = [problem for problem in check_image(image).problems if problem.code != SUPERBLOCK_COPY.code]
            assert not problems, f"epoch {epoch.number}, {choice}"
        complete = epoch.state(pages, Subset(-1))
        assert complete is not None
        pages = patched(pages, complete.patch)
    assert usable > 4
