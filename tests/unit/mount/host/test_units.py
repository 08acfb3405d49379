"""Sizes as people write them."""

import pytest

from deferfs.errors import UsageError
from deferfs.mount.host.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 65_536),
        ("64k", 65_536),
        ("1M", 1 << 20),
        ("1MB", 1 << 20),
        ("1MiB", 1 << 20),
        (" 2G ", 2 << 30),
        ("3T", 3 << 40),
        ("4P", 4 << 50),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        ("2.0", 2),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", ".5G", "1.G", "1,5G", "1X", "1 G", "0x10", "1KK", "\u0661"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1.5", "0.1K"])
def test_there_are_no_parts_of_bytes(text: str) -> None:
    with pytest.raises(UsageError, match="is not a whole number of bytes"):
        parse_size(text)


def test_a_size_beyond_any_file_is_refused() -> None:
    with pytest.raises(UsageError, match="too large"):
        parse_size("9000P")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1000 * 1024, "1.0 MiB"),
        (64 << 20, "64.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (3 << 50, "3.0 PiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text
