from __future__ import annotations

import errno
import stat

import pytest

from deferfs.device import FlushRecord, RecordingDevice, WriteRecord
from deferfs.limits import FILE_BYTES_MAX, PREALLOCATE_START_BYTES
from deferfs.ondisk.inode import (
    FLAG_PREALLOCATED,
    FLAG_TRUNCATING,
    FORM_BYTES,
    FORM_EXTENTS,
    FORM_NONE,
    INLINE_BYTES,
)
from deferfs.ondisk.node import EXTENT
from deferfs.store import extents
from deferfs.volume import files, namespace, xattrs
from deferfs.volume.driver import Driver
from tests.unit.volumes import (
    DIRECTORY,
    LookingPlan,
    assert_sound,
    fails_with,
    free_blocks,
    fresh_device,
    fresh_driver,
    make,
    make_file,
    open_driver,
    record,
    reopened,
    unlink,
)


@pytest.fixture
def driver() -> Driver:
    return fresh_driver()


def whole(driver: Driver, ino: int) -> bytes:
    return driver.read(ino, 0, record(driver, ino).size + 100)


class TestForms:
    def test_a_small_file_is_inline(self, driver: Driver) -> None:
        free = free_blocks(driver)
        ino = make_file(driver, b"file", b"x" * INLINE_BYTES)
        assert (record(driver, ino).form, record(driver, ino).blocks) == (FORM_BYTES, 0)
        assert free_blocks(driver) == free
        assert whole(driver, ino) == b"x" * INLINE_BYTES

    @pytest.mark.parametrize("offset", [0, 100, INLINE_BYTES - 1, INLINE_BYTES, 1023, 1024, 5000])
    def test_inline_data_moves_to_blocks_when_the_file_grows(self, driver: Driver, offset: int) -> None:
        ino = make_file(driver, b"file", b"a" * 300)
        assert driver.write(ino, offset, b"b" * 400) == 400
        expected = bytearray(b"a" * 300).ljust(offset, b"\0")
        expected[offset : offset + 400] = b"b" * 400
        assert record(driver, ino).form == FORM_EXTENTS
        assert whole(driver, ino) == expected
        assert_sound(driver)

    def test_xattrs_leave_less_room_for_inline_data(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        driver.run(xattrs.setxattr, driver.volume, ino, b"user.a", bytes(300))
        driver.write(ino, 0, b"x" * 100)
        assert record(driver, ino).form == FORM_EXTENTS
        assert whole(driver, ino) == b"x" * 100

    def test_an_empty_write_changes_times_only(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        before = record(driver, ino)
        assert driver.write(ino, 5000, b"") == 0
        after = record(driver, ino)
        assert (after.size, after.form) == (0, FORM_NONE)
        assert after.mtime > before.mtime


class TestRead:
    def test_a_read_is_cut_at_the_end_of_the_file(self, driver: Driver) -> None:
        ino = make_file(driver, b"file", b"0123456789")
        assert [driver.read(ino, at, n) for at, n in ((0, 4), (8, 4), (10, 4), (99, 4))] == [b"0123", b"89", b"", b""]

    def test_holes_and_unwritten_blocks_are_zeros(self, driver: Driver) -> None:
        ino = make_file(driver, b"file", b"a" * 1024)
        driver.write(ino, 5 * 1024, b"b" * 10)
        found = driver.run(files.read, driver.volume, ino, 0, 99999)
        assert [(piece.offset is None, piece.length) for piece in found.pieces] == [
            (False, 1024),
            (True, 4096),
            (False, 10),
        ]
        assert whole(driver, ino) == b"a" * 1024 + bytes(4096) + b"b" * 10

    def test_a_read_plan_has_the_epoch_of_the_free_space(self, driver: Driver) -> None:
        ino = make_file(driver, b"file", b"a" * 3000)
        found = driver.run(files.read, driver.volume, ino, 0, 10)
        assert found.epoch == driver.volume.store.space.epoch
        make_file(driver, b"other", b"a" * 3000)
        unlink(driver, b"other")
        driver.collect()
        driver.commit()
        assert driver.run(files.read, driver.volume, ino, 0, 10).epoch > found.epoch


@pytest.mark.parametrize(
    ("mode", "read", "write", "truncate"),
    [
        (DIRECTORY, errno.EISDIR, errno.EISDIR, errno.EISDIR),
        (stat.S_IFLNK | 0o777, 0, errno.EINVAL, errno.EINVAL),
        (stat.S_IFIFO | 0o644, 0, errno.EINVAL, errno.EINVAL),
        (stat.S_IFCHR | 0o644, 0, errno.EINVAL, errno.EINVAL),
    ],
)
def test_an_inode_that_is_no_regular_file(driver: Driver, mode: int, read: int, write: int, truncate: int) -> None:
    ino = make(driver, b"thing", mode)
    if read:
        with fails_with(read):
            driver.read(ino, 0, 1)
    with fails_with(write):
        driver.write(ino, 0, b"x")
    with fails_with(truncate):
        driver.truncate(ino, 5)
    with fails_with(write):
        driver.run(files.trim, driver.volume, ino)


def test_readlink_is_for_symbolic_links(driver: Driver) -> None:
    ino = make(driver, b"file")
    with fails_with(errno.EINVAL):
        driver.readlink(ino)


@pytest.mark.parametrize("length", [1, INLINE_BYTES, INLINE_BYTES + 1, 1024, 1025, 4095])
def test_symbolic_links_of_every_length(driver: Driver, length: int) -> None:
    target = bytes(97 + i % 26 for i in range(length))
    link = driver.run(namespace.symlink, driver.volume, 1, b"link", target)
    assert (link.size, stat.S_IFMT(link.mode)) == (length, stat.S_IFLNK)
    assert driver.readlink(link.ino) == target
    driver.commit()
    again = reopened(driver)
    assert again.readlink(link.ino) == target
    assert_sound(again)
    free = free_blocks(driver)
    blocks = link.blocks
    unlink(driver, b"link")
    driver.collect()
    assert free_blocks(driver) == free + blocks


class TestSize:
    def test_sixteen_tebibytes_is_the_end(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        assert driver.write(ino, FILE_BYTES_MAX - 3, b"end") == 3
        assert record(driver, ino).size == FILE_BYTES_MAX
        assert driver.read(ino, FILE_BYTES_MAX - 4, 10) == b"\0end"
        for offset in (FILE_BYTES_MAX, FILE_BYTES_MAX + 1, 1 << 60):
            with fails_with(errno.EFBIG):
                driver.write(ino, offset, b"end")
        assert driver.run(files.write, driver.volume, ino, FILE_BYTES_MAX - 2, b"what does not fit") == 2
        assert driver.read(ino, FILE_BYTES_MAX - 4, 10) == b"\0ewh"
        assert record(driver, ino).size == FILE_BYTES_MAX
        with fails_with(errno.EFBIG):
            driver.truncate(ino, FILE_BYTES_MAX + 1)
        driver.truncate(ino, FILE_BYTES_MAX)
        assert_sound(driver)

    def test_a_sparse_file_past_four_gibibytes(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        written = {}
        for power in range(10, 44):
            offset = (1 << power) - 3
            driver.write(ino, offset, b"%06d" % power)
            written[offset] = b"%06d" % power
        for offset, data in written.items():
            assert driver.read(ino, offset, 6) == data
            assert driver.read(ino, offset - 2, 2) == b"\0\0"
        assert record(driver, ino).blocks < 100
        driver.truncate(ino, (1 << 33) + 3)
        assert whole_tail(driver, ino) == b"0033"
        assert_sound(driver)
        unlink(driver, b"file")
        driver.collect()
        assert_sound(driver)


def whole_tail(driver: Driver, ino: int) -> bytes:
    size = record(driver, ino).size
    return driver.read(ino, size - 4, 99)


class TestTruncate:
    @pytest.mark.parametrize("start", [0, 10, 384, 1024, 1500, 10_000])
    @pytest.mark.parametrize("length", [0, 5, 384, 1000, 1024, 1025, 9_999, 20_000])
    def test_to_any_length(self, driver: Driver, start: int, length: int) -> None:
        data = bytes(1 + i % 255 for i in range(start))
        ino = make_file(driver, b"file", data)
        driver.truncate(ino, length)
        assert whole(driver, ino) == data[:length].ljust(length, b"\0")
        driver.truncate(ino, length + 3000)
        assert whole(driver, ino) == data[:length].ljust(length + 3000, b"\0")
        assert_sound(driver)

    def test_the_blocks_behind_are_freed(self, driver: Driver) -> None:
        ino = make_file(driver, b"file", b"x" * 20_000)
        driver.commit()
        free = free_blocks(driver)
        driver.truncate(ino, 5000)
        assert record(driver, ino).blocks == 5
        assert free_blocks(driver) == free + 15
        assert not record(driver, ino).flags & FLAG_TRUNCATING

    @pytest.mark.parametrize("length", [1500, 5000, 9999])
    def test_a_block_that_was_durable_is_never_written(self, length: int) -> None:
        """What stays of the cut block is copied; so a crash finds the old bytes or the new length."""
        device = RecordingDevice(fresh_device())
        driver = open_driver(device)
        ino = make_file(driver, b"file", bytes(1 + i % 255 for i in range(10_000)))
        driver.fsync(ino)
        (_, value) = record(driver, ino).entries[0]
        physical, count, _ = EXTENT.unpack(value)
        assert count == 10
        device.clear()
        driver.truncate(ino, length)
        driver.truncate(ino, 9000)
        driver.write(ino, 9500, b"new")
        old = range(physical * 1024, (physical + count) * 1024)
        for entry in device.records:
            if isinstance(entry, WriteRecord) and entry.offset in old:
                # whole blocks that stay may be written, if only with what is asked for
                assert entry.offset >= 9000 + physical * 1024
                raise AssertionError(f"block of the old file written at {entry.offset}")
        assert not any(isinstance(entry, FlushRecord) for entry in device.records)

    def test_a_long_truncate_is_rolled_into_several_operations(self) -> None:
        driver = fresh_driver()
        ino = make(driver, b"file")
        for block in range(0, 1500, 2):
            driver.write(ino, block * 1024, b"x" * 1024)
        assert not driver.run(files.truncate, driver.volume, ino, 1024 * 500)
        middle = record(driver, ino)
        assert middle.size == 1024 * 500
        assert middle.flags & FLAG_TRUNCATING
        assert driver.read(ino, 1024 * 498, 99_999) == b"x" * 1024 + bytes(1024)
        assert_sound(driver)
        again = reopened(driver)
        inode = again.volume.inodes.lookup(ino, middle.generation)
        again.volume.lookup_count(record(again, ino))
        assert inode.preallocated
        again.forget(ino, 2)
        again.volume.inodes.shrink(1 << 30, 64)
        driver.truncate(ino, 1024 * 500)
        assert not record(driver, ino).flags & FLAG_TRUNCATING
        assert_sound(driver)

    @pytest.mark.parametrize("by", ["truncate", "write"])
    def test_extending_an_unfinished_truncate_shows_no_old_bytes(self, by: str) -> None:
        driver = fresh_driver()
        ino = make(driver, b"file")
        for block in range(0, 1000, 2):
            driver.write(ino, block * 1024, b"x" * 1024)
        assert not driver.run(files.truncate, driver.volume, ino, 1024)
        if by == "truncate":
            driver.truncate(ino, 1024 * 1000)
        else:
            driver.write(ino, 1024 * 999, b"end")
        assert driver.read(ino, 1024, 1024 * 998) == bytes(1024 * 998)
        assert_sound(driver)


class TestZeroing:
    """Bytes past EOF are undefined on disk and must never be visible."""

    @pytest.mark.parametrize("by", ["truncate", "write", "write far"])
    def test_extension_zeroes_to_the_end_of_the_block(self, by: str) -> None:
        device = fresh_device()
        driver = open_driver(device)
        ino = make_file(driver, b"file", b"x" * 1500)
        (_, value) = record(driver, ino).entries[0]
        at = EXTENT.unpack(value)[0] * 1024 + 1500
        device.write(at, b"!" * (2048 - 1500))
        if by == "truncate":
            driver.truncate(ino, 1800)
        driver.truncate(ino, 4000) if by == "truncate" else driver.write(ino, 1600 if by == "write" else 9000, b"new")
        expected = bytearray(b"x" * 1500)
        if by != "truncate":
            offset = 1600 if by == "write" else 9000
            expected = expected.ljust(offset, b"\0") + b"new"
        assert whole(driver, ino) == expected.ljust(4000 if by == "truncate" else 0, b"\0")


class TestPreallocation:
    def grow(self, driver: Driver, ino: int, size: int) -> None:
        for at in range(0, size, 8192):
            driver.write(ino, at, b"x" * 8192)

    def test_a_growing_file_is_given_blocks_past_its_end(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        self.grow(driver, ino, PREALLOCATE_START_BYTES)
        assert not record(driver, ino).flags & FLAG_PREALLOCATED
        self.grow(driver, ino, PREALLOCATE_START_BYTES + 8192)
        found = record(driver, ino)
        assert found.flags & FLAG_PREALLOCATED
        assert found.blocks * 1024 > found.size
        last = driver.run(extents.last_mapping, found)
        assert last is not None
        assert last.unwritten
        assert_sound(driver)

    def test_two_files_growing_in_turn_stay_contiguous(self) -> None:
        driver = fresh_driver(16 << 20)
        inos = [make(driver, name) for name in (b"a", b"b")]
        for at in range(0, 1 << 20, 4096):
            for ino in inos:
                driver.write(ino, at, b"x" * 4096)
        for ino in inos:
            mappings = extents.map_range(LookingPlan(driver), record(driver, ino), 0, 1024)
            assert len(mappings) < 45
            assert all(mapping.physical for mapping in mappings)

    def test_preallocated_blocks_read_as_zeros_when_the_file_is_extended(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        self.grow(driver, ino, 80 * 1024)
        assert record(driver, ino).flags & FLAG_PREALLOCATED
        driver.truncate(ino, 90 * 1024)
        assert driver.read(ino, 80 * 1024, 99_999) == bytes(10 * 1024)
        driver.write(ino, 85 * 1024 + 100, b"data")
        assert driver.read(ino, 85 * 1024, 1024) == bytes(100) + b"data" + bytes(920)
        assert_sound(driver)

    def test_trim_frees_what_lies_past_the_end(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        self.grow(driver, ino, 80 * 1024)
        free = free_blocks(driver)
        surplus = record(driver, ino).blocks - 80
        assert driver.run(files.trim, driver.volume, ino)
        found = record(driver, ino)
        assert (found.blocks, found.flags) == (80, 0)
        assert free_blocks(driver) == free + surplus
        assert driver.run(files.trim, driver.volume, ino)
        assert whole(driver, ino) == b"x" * 80 * 1024

    def test_a_small_file_and_a_random_writer_get_none(self, driver: Driver) -> None:
        ino = make_file(driver, b"small", b"x" * 30_000)
        assert not record(driver, ino).flags
        ino = make(driver, b"random")
        driver.truncate(ino, 500_000)
        for at in (400_000, 100_000, 300_000):
            driver.write(ino, at, b"x" * 5000)
        assert not record(driver, ino).flags & FLAG_PREALLOCATED

    def test_a_tenth_of_the_space_is_left_alone(self, driver: Driver) -> None:
        space = driver.volume.store.space
        filler = make(driver, b"filler")
        while space.free_blocks > space.blocks // 10:
            before = (space.free_blocks, record(driver, filler).size)
            driver.write(filler, before[1], b"x" * 16_384)
        assert space.free_blocks >= space.blocks // 10 - 17
        driver.run(files.trim, driver.volume, filler)
        while space.free_blocks > space.blocks // 10:
            driver.write(filler, record(driver, filler).size, b"x" * 1024)
        ino = make(driver, b"file")
        self.grow(driver, ino, 80 * 1024)
        assert not record(driver, ino).flags & FLAG_PREALLOCATED

    def test_a_file_with_holes_wastes_no_more_than_it_holds(self) -> None:
        driver = fresh_driver(16 << 20)
        ino = make(driver, b"file")
        for number in range(20):
            for part in range(4):
                driver.write(ino, number * 500_000 + part * 8192, b"x" * 8192)
        assert record(driver, ino).blocks <= 2 * 20 * 32 + 4

    @pytest.mark.parametrize("evict", ["deferred", "inline"])
    def test_blocks_past_the_end_go_when_the_kernel_forgets_the_file(self, evict: str) -> None:
        """The kernel has known the file since before it was given any."""
        driver = fresh_driver(evict=evict)
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        self.grow(driver, ino, 80 * 1024)
        driver.forget(ino, 1)
        driver.reclaim(1 << 20)
        driver.collect()
        assert (record(driver, ino).blocks, record(driver, ino).flags) == (80, 0)


@pytest.mark.parametrize("start", [0, 100, 1500])
def test_a_write_larger_than_a_transaction_is_done_in_parts(start: int) -> None:
    driver = fresh_driver(6 << 20, journal_blocks=256)
    store = driver.volume.store
    # nothing but single free blocks, so that each block is an extent of its own
    ino = make_file(driver, b"file", b"inline" * 50)
    held = []
    while store.space.available > 2:
        held.append(store.space.hold(0, 1)[0])
    for first in held[::2]:
        store.space.let_go(first, 1)
    data = bytes(1 + i % 251 for i in range(2_400_000))
    written = driver.run(files.write, driver.volume, ino, start, data)
    assert 0 < written < len(data)
    assert record(driver, ino).size == start + written
    driver.write(ino, start + written, data[written:])
    assert whole(driver, ino) == (b"inline" * 50)[:start].ljust(start, b"\0") + data
    for first in held[1::2]:
        store.space.let_go(first, 1)
    assert_sound(driver)


def test_data_reaches_the_device_before_the_transaction_that_maps_it() -> None:
    device = RecordingDevice(fresh_device())
    driver = open_driver(device)
    ino = make(driver, b"file")
    driver.commit()
    device.clear()
    driver.write(ino, 0, b"D" * 2048)
    driver.commit()
    shape = "".join(
        "|"
        if isinstance(entry, FlushRecord)
        else "D"
        if isinstance(entry, WriteRecord) and b"DDDD" in entry.data
        else "w"
        for entry in device.records
    )
    assert shape == "Dw|w|"
