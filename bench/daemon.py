"""Asking the daemon of a mount."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deferfs.mount import control_client


def read_statistics(mountpoint: Path) -> dict[str, Any]:
    """The object that `deferfs stat --json` prints."""
    answer = control_client.ask(control_client.find_mount(str(mountpoint)), "stat")
    assert isinstance(answer, dict)
    return answer


def daemon_pid(mountpoint: Path) -> int:
    """The process that serves the mount."""
    return int(read_statistics(mountpoint)["pid"])
