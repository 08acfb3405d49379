"""A process that exits with the last references to deleted files."""

from __future__ import annotations

import os
from pathlib import Path

from deferfs.measure.work.exiting import Exit
from deferfs.measure.work.processes import StopFlag


def test_the_names_go_before_the_clock_starts_and_the_references_when_it_does(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"x")
    job = Exit([str(path) for path in paths])
    job.prepare()
    assert list(tmp_path.iterdir()) == []
    held = [link for link in map(_target, Path("/proc/self/fd").iterdir()) if link.startswith(str(tmp_path))]
    assert len(held) == 3
    series = job.measure(StopFlag()).series["exit"]
    assert (series.latency.count, series.due, series.failed) == (3, 3, 0)
    assert not any(_target(link).startswith(str(tmp_path)) for link in Path("/proc/self/fd").iterdir())


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
