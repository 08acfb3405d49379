from __future__ import annotations

import faulthandler
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferfs.mount import logs


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    faulthandler.enable(2)


def test_a_reply_that_came_too_late_is_no_error(tmp_path: Path) -> None:
    logs.configure(foreground=False, file=str(tmp_path / "log"), instance="/mnt/100%")
    logger = logging.getLogger("pyfuse3")
    logger.error("fuse_releasedir(): fuse_reply_* failed with %s", "No such file or directory")
    logger.error("fuse_releasedir(): fuse_reply_* failed with %s", "Invalid argument")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("/mnt/100%: ERROR: fuse_releasedir(): fuse_reply_* failed with Invalid argument")
