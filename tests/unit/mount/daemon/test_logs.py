from __future__ import annotations

import faulthandler
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deferfs.errors import EnvironmentProblem
from deferfs.mount.daemon import logs


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


def test_names_cannot_forge_entries(tmp_path: Path) -> None:
    logs.configure(foreground=False, file=str(tmp_path / "log"), instance="/mnt/a\nb")
    logger = logging.getLogger("deferfs")
    logger.warning("busy: used by %s", "evil\n2026-01-01 root: ERROR: forged \x1b[2J \u202e\udcff")
    try:
        raise ValueError("x\n2026-01-01 root: ERROR: forged\r\x1b[2J")
    except ValueError:
        logger.exception("internal error")
    lines = (tmp_path / "log").read_text().split("\n")
    assert lines.pop() == ""
    assert lines[0].endswith(
        "/mnt/a\\nb: WARNING: busy: used by evil\\n2026-01-01 root: ERROR: forged \\x1b[2J \\u202e\\xff"
    )
    assert lines[1].endswith("ERROR: internal error")
    assert lines[2] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in lines[2:])


@pytest.mark.parametrize("kind", ["FIFO", "directory"])
def test_a_log_that_cannot_be_is_an_error_of_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path) if kind == "FIFO" else path.mkdir()
    with pytest.raises(EnvironmentProblem, match=f"log=.*is a {kind}"):
        logs.configure(foreground=False, file=str(path), instance="/mnt")
