"""Getting hold of an image that another process holds."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from deferfs.errors import ImageInUseError
from deferfs.mount.daemon import image
from tests.unit.mount.locks import EXCLUSIVE, SHARED, holding


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "image"
    found.write_bytes(bytes(4096))
    return found


@pytest.fixture(autouse=True)
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause of the wait takes ten seconds, and no time."""
    now = [0.0]

    def sleep(_seconds: float) -> None:
        now[0] += 10

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)


def test_a_reader_that_is_waited_for_is_named_before_the_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def sleep(_seconds: float) -> None:
        assert told
        raise InterruptedError

    monkeypatch.setattr(time, "sleep", sleep)
    with holding(path, SHARED, "evil\n\x1b[2J") as pid, pytest.raises(InterruptedError):
        image.open_image(str(path), writable=True, notice=told.append)
    assert told == [f"{path}: waiting for evil\\n\\x1b[2J (pid {pid}), which holds a lock on it"]


@pytest.mark.parametrize("lock", [SHARED, EXCLUSIVE])
def test_the_error_after_the_wait_names_the_holder(path: Path, lock: str) -> None:
    told: list[str] = []
    with holding(path, lock) as pid:
        with pytest.raises(ImageInUseError, match=rf"in use by holder \(pid {pid}\)"):
            image.open_image(str(path), writable=True, notice=told.append)
        assert told == [f"{path}: waiting for holder (pid {pid}), which holds a lock on it"]


def test_a_reader_is_no_obstacle_for_a_reader(path: Path) -> None:
    with holding(path, SHARED):
        image.open_image(str(path), writable=False).close()


def test_a_lock_without_a_visible_holder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "holders_of", lambda _path: [])
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        with pytest.raises(ImageInUseError, match="in use by another process"):
            image.open_image(str(path), writable=True)
    finally:
        os.close(fd)
