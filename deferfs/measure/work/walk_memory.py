"""How much memory does the daemon need while very many files are walked?

The kernel keeps inodes as long as it has spare memory, and the daemon must keep an in-core inode for each of them. So
the walk is done in a memory cgroup, as in a container, and without.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from deferfs.errors import DeferfsError
from deferfs.measure.host.cgroup import MemoryCgroup, find_hierarchy
from deferfs.measure.host.machine import process_memory_bytes
from deferfs.measure.work.processes import StopFlag, Worker

WALK_SECONDS_MAX: Final = 1800.0
WALKER_LIMIT_BYTES: Final = 64 << 20


class Walk(msgspec.Struct, frozen=True):
    """Resident bytes of the daemon: `start` after mounting, `peak` during the walk, `end` after it.

    `budget` is the memory budget of the mount; `beyond` the excess of the peak over start and budget.
    """

    files: int
    limited: bool
    budget: int
    start: int
    peak: int
    end: int
    beyond: int


class _Counted(msgspec.Struct, frozen=True):
    files: int


class _Walker:
    """Lists every directory below `root` and stats every entry; the job of a worker."""

    name = "walk"

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def prepare(self) -> None:
        """No-op."""

    def measure(self, stop: StopFlag) -> _Counted:
        """Walk. Entries are read one by one: a list of a million names would not fit into the cgroup."""
        files = 0
        directories = [self._root]
        while directories:
            with os.scandir(directories.pop()) as entries:
                for entry in entries:
                    os.lstat(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
                    else:
                        files += 1
        return _Counted(files)


def measure_walk(root: Path, daemon_pid: int, budget: int, *, limited: bool) -> Walk:
    """Walk everything below `root`, of which nothing has been accessed since the mount."""
    start = process_memory_bytes(daemon_pid, "VmRSS")
    with contextlib.ExitStack() as stack:
        worker = Worker(_Walker(root), StopFlag())
        stack.callback(worker.close)
        if limited:
            stack.enter_context(_walker_cgroup()).add(worker.pid)
            stack.callback(worker.close)  # before its cgroup is removed
        worker.join()
        worker.wait_ready()
        worker.go()
        files = int(worker.result(WALK_SECONDS_MAX)["files"])
    peak = process_memory_bytes(daemon_pid, "VmHWM")
    return Walk(
        files=files,
        limited=limited,
        budget=budget,
        start=start,
        peak=peak,
        end=process_memory_bytes(daemon_pid, "VmRSS"),
        beyond=peak - start - budget,
    )


def _walker_cgroup() -> MemoryCgroup:
    hierarchy = find_hierarchy()
    if hierarchy is None:
        raise DeferfsError("no memory cgroups on this machine: the walk in one cannot be measured")
    return MemoryCgroup(hierarchy, f"deferfs-walk-{os.getpid()}", WALKER_LIMIT_BYTES)
