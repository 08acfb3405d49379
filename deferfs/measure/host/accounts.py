"""Processor time of processes from /proc/PID/stat, and their descendants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

KERNEL_THREAD: Final = 0x0020_0000
"""PF_KTHREAD in the flags of /proc/PID/stat."""


class Account(msgspec.Struct, frozen=True):
    """One line of /proc/PID/stat: processor seconds of its own, and of children that were waited for. `started`
    distinguishes it from a later process with the same pid."""

    started: int
    kernel_thread: bool
    own: float
    children: float


def parse_account(text: str) -> Account:
    """Parse the text of a `stat` file."""
    fields = text.rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    user, system, children_user, children_system = (int(field) / tick for field in fields[11:15])
    return Account(
        int(fields[19]), bool(int(fields[6]) & KERNEL_THREAD), user + system, children_user + children_system
    )


def account_of(pid: int, proc: Path) -> Account | None:
    """The account of process `pid`; None when it is gone."""
    try:
        return parse_account((proc / str(pid) / "stat").read_text(errors="replace"))
    except OSError:
        return None


def descendants(pid: int, proc: Path) -> Iterator[int]:
    """All current descendants of `pid`."""
    waiting = [pid]
    while waiting:
        try:
            lists = [task / "children" for task in (proc / str(waiting.pop()) / "task").iterdir()]
            found = [int(word) for path in lists for word in path.read_text().split()]
        except OSError:
            continue
        yield from found
        waiting += found
