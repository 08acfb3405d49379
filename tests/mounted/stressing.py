"""Processes that do everything at once to a mount."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.mounted.scratch import Scratch

STRESS = Path(__file__).parent / "programs" / "stress.py"


def start(scratch: Scratch, count: int, operations: int, seed: int = 0) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, STRESS, scratch.mountpoint, str(operations), str(seed + number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> int:
    """All of them end well; how often they met a full disk."""
    full = 0
    try:
        for process in processes:
            output, errors = process.communicate(timeout=100)
            assert process.returncode == 0, errors
            full += int(output)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return full
