"""Sizes and times as people write and read them."""

import pytest

from deferfs.errors import UsageError
from deferfs.units import format_duration, format_ns, format_size, parse_size, three_digits


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
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1.5", "0.1K"])
def test_sizes_have_no_parts_of_bytes(text: str) -> None:
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


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1536, "1.50 KiB"), (48 << 20, "48.0 MiB"), (3 << 40, "3.00 TiB")],
)
def test_sizes_with_three_digits(size: int, text: str) -> None:
    assert format_size(size, significant=True) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0123, "0.01"), (1.234, "1.23"), (12.34, "12.3"), (1234, "1234")]
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text", "significant"),
    [
        (0, "0 ns", "0 ns"),
        (850, "850 ns", "850 ns"),
        (12_345, "12.3 us", "12.3 us"),
        (4.56e6, "4.6 ms", "4.56 ms"),
        (999_700, "1.0 ms", "1.00 ms"),
        (4.56e9, "4.56 s", "4.56 s"),
        (75e9, "75.00 s", "75.0 s"),
    ],
)
def test_times(nanoseconds: float, text: str, significant: str) -> None:
    assert format_ns(nanoseconds) == text
    assert format_ns(nanoseconds, significant=True) == significant


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.9, "12 s"), (200, "3 min 20 s"), (18_725, "5 h 12 min"), (356_400, "4 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
