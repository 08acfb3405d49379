from hypothesis import given
from hypothesis import strategies as st

from deferfs.device import (
    SECTOR_BYTES,
    MemoryDevice,
    TearingDevice,
    WriteRecord,
    apply_torn,
    keep_all,
    keep_none,
)

SECTORS = 8
SIZE = SECTORS * SECTOR_BYTES


def sector(letter: str) -> bytes:
    return letter.encode() * SECTOR_BYTES


def test_unflushed_writes_are_read_but_not_durable() -> None:
    device = TearingDevice(MemoryDevice(SIZE))
    device.write(0, b"volatile")
    assert device.read(0, 8) == b"volatile"
    assert device.durable() == bytes(SIZE)
    device.flush()
    assert device.durable()[:8] == b"volatile"
    assert device.unflushed == ()


def test_a_crash_keeps_any_subset_of_the_unflushed_writes() -> None:
    device = TearingDevice(MemoryDevice(SIZE))
    device.write(0, sector("a"))
    device.write(SECTOR_BYTES, sector("b"))
    device.write(0, sector("c"))
    expected = {0b000: "\0\0", 0b001: "a\0", 0b010: "\0b", 0b011: "ab", 0b100: "c\0", 0b111: "cb"}
    for kept, letters in expected.items():
        image = device.crash(lambda index, _, kept=kept: -(kept >> index & 1))  # type: ignore[misc]
        assert image[: 2 * SECTOR_BYTES] == sector(letters[0]) + sector(letters[1])
    assert device.read(0, 2 * SECTOR_BYTES) == sector("c") + sector("b")


def test_a_kept_write_may_be_torn_at_sectors() -> None:
    device = TearingDevice(MemoryDevice(SIZE))
    device.write(0, sector("x") * 4)
    image = device.crash(lambda index, sectors: 0b1010)
    assert image == (bytes(SECTOR_BYTES) + sector("x")) * 2 + bytes(SIZE - 4 * SECTOR_BYTES)


def test_sectors_are_those_of_the_disk_not_of_the_write() -> None:
    device = TearingDevice(MemoryDevice(SIZE))
    device.write(500, b"x" * 600)
    asked = []

    def first(index: int, sectors: int) -> int:
        asked.append((index, sectors))
        return 1

    assert device.crash(first) == bytes(500) + b"x" * 12 + bytes(SIZE - 512)
    assert asked == [(0, 3)]


def test_a_discard_is_lost_or_kept_like_a_write() -> None:
    device = TearingDevice(MemoryDevice.from_bytes(sector("x") * SECTORS))
    device.discard(0, SECTOR_BYTES)
    assert device.unflushed == (WriteRecord(0, bytes(SECTOR_BYTES)),)
    assert device.crash(keep_none) == sector("x") * SECTORS
    assert device.crash(keep_all) == bytes(SECTOR_BYTES) + sector("x") * (SECTORS - 1)


writes = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=1500)).map(
        lambda drawn: (drawn[0], drawn[1][: SIZE - drawn[0]])
    ),
    max_size=6,
)


@given(before=writes, after=writes, kept=st.lists(st.integers(0, 15), min_size=6, max_size=6))
def test_a_crash_image_holds_in_each_byte_the_old_or_an_unflushed_value(
    before: list[tuple[int, bytes]], after: list[tuple[int, bytes]], kept: list[int]
) -> None:
    device = TearingDevice(MemoryDevice(SIZE))
    for offset, data in before:
        device.write(offset, data)
    device.flush()
    durable = device.read(0, SIZE)
    for offset, data in after:
        device.write(offset, data)

    def choose(index: int, sectors: int) -> int:
        return kept[index]

    allowed = [{value} for value in durable]
    for offset, data in after:
        for position, value in enumerate(data, offset):
            allowed[position].add(value)
    image = device.crash(choose)
    assert all(value in values for value, values in zip(image, allowed, strict=True))
    assert image == device.crash(choose)
    assert device.durable() == durable
    assert device.crash(keep_all) == device.read(0, SIZE)


def test_apply_torn_works_on_the_log_of_a_recording_device_too() -> None:
    image = bytearray(2 * SECTOR_BYTES)
    apply_torn(image, [WriteRecord(0, sector("a") * 2), WriteRecord(1, b"zz")], keep_all)
    assert image == b"azz" + (sector("a") * 2)[3:]
