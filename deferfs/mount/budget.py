"""The default memory budget: what the daemon's own cgroup leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from deferfs.limits import MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN
from deferfs.mount.own_cgroup import own_cgroups

CGROUP_SHARE: Final = 2
"""The caches take at most 1/2 of the cgroup's limit: interpreter, buffers and page cache need the rest."""


_LIMITS: Final = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}


def default_budget(*, proc: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Bytes for inodes and blocks: MEMORY_BYTES_DEFAULT, or less in a cgroup with a small limit."""
    limits = [limit for path in _limit_files(proc, root) if (limit := _read(path)) is not None]
    budget = min([MEMORY_BYTES_DEFAULT, *(limit // CGROUP_SHARE for limit in limits)])
    return max(MEMORY_BYTES_MIN, budget)


def _limit_files(proc: str, root: str) -> Iterator[str]:
    """The limit files of the process's memory cgroup and of those above it, version 1 and 2."""
    for version, directory in own_cgroups(proc=proc, root=root):
        while directory.startswith(root):
            for name in _LIMITS[version]:
                yield os.path.join(directory, name)
            directory = os.path.dirname(directory)


def _read(path: str) -> int | None:
    """The limit in bytes; None for `max`, or where there is no such file."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
