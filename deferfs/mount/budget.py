"""The default memory budget: what the daemon's own cgroup leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from deferfs.limits import MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN

CGROUP_SHARE: Final = 2
"""The caches take at most 1/2 of the cgroup's limit: interpreter, buffers and page cache need the rest."""


def default_budget(*, proc: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Bytes for inodes and blocks: MEMORY_BYTES_DEFAULT, or less in a cgroup with a small limit."""
    limits = [limit for path in _limit_files(proc, root) if (limit := _read(path)) is not None]
    budget = min([MEMORY_BYTES_DEFAULT, *(limit // CGROUP_SHARE for limit in limits)])
    return max(MEMORY_BYTES_MIN, budget)


def _limit_files(proc: str, root: str) -> Iterator[str]:
    """The limit files of the process's memory cgroup and of those above it, version 1 and 2."""
    try:
        with open(proc, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = os.path.join(root, "memory"), "memory.limit_in_bytes"
        else:
            continue
        while True:
            yield os.path.join(base, path.strip("/"), name)
            if path.strip("/") == "":
                break
            path = os.path.dirname(path)


def _read(path: str) -> int | None:
    """The limit in bytes; None for `max`, or where there is no such file."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
