import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferfs.device.record_lock import HELD_BY_OTHERS, lock_range


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two open file descriptions of one file."""
    path = tmp_path / "file"
    path.touch()
    opened = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    yield opened
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize(("start", "length"), [(0, 0), (4, 1), (9, 5)])
def test_the_bytes_of_another_are_refused_at_once(two: tuple[int, int], start: int, length: int) -> None:
    lock_range(two[0], 4, 6, exclusive=True)
    with pytest.raises(OSError, match=r"unavailable|denied") as caught:
        lock_range(two[1], start, length, exclusive=False)
    assert caught.value.errno in HELD_BY_OTHERS


@pytest.mark.parametrize(("start", "length"), [(0, 4), (10, 0)])
def test_the_bytes_beside_are_free(two: tuple[int, int], start: int, length: int) -> None:
    lock_range(two[0], 4, 6, exclusive=True)
    lock_range(two[1], start, length, exclusive=True)


def test_readers_share(two: tuple[int, int]) -> None:
    for fd in two:
        lock_range(fd, 0, 0, exclusive=False)
    with pytest.raises(OSError, match=r"unavailable|denied"):
        lock_range(two[0], 0, 0, exclusive=True)
