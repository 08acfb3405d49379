import os
import time
from pathlib import Path

import pytest

from deferfs.measure.work.filling import filling
from deferfs.measure.work.processes import WorkerError


def test_files_are_made_by_another_process(tmp_path: Path) -> None:
    def fill(root: Path) -> None:
        (root / "pid").write_text(str(os.getpid()))

    with filling(tmp_path, fill) as filled:
        filled()
    assert int((tmp_path / "pid").read_text()) != os.getpid()


def test_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    with (
        filling(tmp_path / "none", lambda root: (root / "file").touch()) as filled,
        pytest.raises(WorkerError, match=r"filling of .*/none process failed: .*none/file: No such file or directory"),
    ):
        filled()


def test_process_is_killed_when_the_block_is_left_early(tmp_path: Path) -> None:
    """A filesystem is busy as long as a file of it is open."""

    def fill(root: Path) -> None:
        with (root / "file").open("w"):
            (root / "pid").write_text(str(os.getpid()))
            time.sleep(60)

    with filling(tmp_path, fill):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
