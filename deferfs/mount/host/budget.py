"""The default memory budget, derived from the limit of the daemon's cgroup."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Final

from deferfs.limits import MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, MIB, RESIDENT_BASE_BYTES
from deferfs.mount.host.own_cgroup import own_cgroups

log = logging.getLogger(__name__)

CGROUP_SHARE: Final = 2
"""The caches take at most 1/2 of the cgroup's limit: interpreter, buffers and page cache need the rest."""

_LIMITS: Final = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}


def default_budget(
    warn: Callable[[str], None] = log.warning, *, proc: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup"
) -> int:
    """Bytes for inodes and blocks: MEMORY_BYTES_DEFAULT, or less in a cgroup with a small limit, so that the budget and
    RESIDENT_BASE_BYTES fit into it. `warn` is called when that leaves less than MEMORY_BYTES_MIN."""
    limits = [limit for path in _limit_files(proc, root) if (limit := _read(path)) is not None]
    smallest = min(limits, default=None)
    if smallest is None:
        return MEMORY_BYTES_DEFAULT
    left = smallest - RESIDENT_BASE_BYTES
    if left < MEMORY_BYTES_MIN:
        needed = (RESIDENT_BASE_BYTES + MEMORY_BYTES_MIN) // MIB
        warn(f"the memory cgroup is limited to {smallest // MIB} MiB: the daemon may need {needed} MiB")
    return max(MEMORY_BYTES_MIN, min(MEMORY_BYTES_DEFAULT, smallest // CGROUP_SHARE, left))


def _limit_files(proc: str, root: str) -> Iterator[str]:
    """The limit files of the process's memory cgroup and of its ancestors, version 1 and 2."""
    for version, directory in own_cgroups(proc=proc, root=root):
        while directory.startswith(root):
            for name in _LIMITS[version]:
                yield os.path.join(directory, name)
            directory = os.path.dirname(directory)


def _read(path: str) -> int | None:
    """The limit in bytes; None for `max`, or when the file does not exist."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
