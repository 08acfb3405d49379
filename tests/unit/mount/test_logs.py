"""What the log leaves out."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferfs.mount import logs


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    root, library = logging.getLogger(), logging.getLogger("pyfuse3")
    before = root.handlers[:], root.level, library.filters[:]
    logs.configure(foreground=False, file=str(tmp_path / "log"), instance="/mnt")
    yield tmp_path / "log"
    for handler in root.handlers:
        handler.close()
    root.handlers[:], level, library.filters[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(("number", "kept"), [(errno.ENOENT, False), (errno.EINVAL, True)])
def test_an_answer_to_nobody_is_no_error(log: Path, number: int, kept: bool) -> None:
    """The kernel gives up requests at unmount and for signals, and then knows nothing of them."""
    logging.getLogger("pyfuse3").error("fuse_release(): fuse_reply_* failed with %s", os.strerror(number))
    assert bool(log.read_text()) is kept


def test_other_words_of_the_library_are_kept(log: Path) -> None:
    logging.getLogger("pyfuse3").error("fuse_setattr(): clock_gettime(CLOCK_REALTIME) failed with %s", "x")
    assert "clock_gettime" in log.read_text()
