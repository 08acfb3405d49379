"""The process in whose children this test process runs `deferfs` commands: the tests mount many hundred times, and
imports take most of the processor time of a mount (`deferfs.measure.host.preloaded`)."""

from __future__ import annotations

import os
import subprocess
from typing import Final

from deferfs.measure.host.preloaded import MODULES, Preloaded

OFTEN: Final = ("deferfs.cli.ctl", "deferfs.cli.fsck", "deferfs.cli.stat")
"""Commands that tests call often, beside those of a mount."""
MARK: Final = "DEFERFS_TEST"
"""The environment variable by which the sweep after a test (tests/conftest.py) knows processes."""

_process: Preloaded | None = None


def run(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """`deferfs WORDS` in a child of this test process's preloaded one, which the first call starts, and the first after
    one that failed. TimeoutError after so many seconds."""
    global _process
    if _process is None or _process.closed:
        _process = Preloaded((*MODULES, *OFTEN), {MARK: mark()})
    return _process.run(words, seconds)


def may_run() -> bool:
    """Whether what is started now belongs to a test that mounts: the sweep after it finds what is left. A mount that
    outlives its test is started afresh."""
    return MARK in os.environ


def pid() -> int | None:
    """Of the preloaded process, if there is one."""
    return None if _process is None or _process.closed else _process.pid


def mark() -> str:
    """What /proc/PID/environ names after `MARK` for all that this test process has ever run preloaded."""
    return f"preloaded-{os.getpid()}"


def close() -> None:
    """End the preloaded process, if there is one."""
    if _process is not None:
        _process.close()
