"""What this machine supports of a benchmark, checked before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

from deferfs.errors import EnvironmentProblem
from deferfs.measure.host.cgroup import CGROUP_ROOT, Hierarchy, MemoryCgroup, find_hierarchy


def usable_hierarchy(limit_bytes: int, root: Path = CGROUP_ROOT) -> tuple[Hierarchy | None, str]:
    """The hierarchy for a memory cgroup of this size, checked by making one; or None and one line that says what is
    missing.
    """
    missing = "what needs one is not run, or without a memory limit"
    hierarchy = find_hierarchy(root)
    if hierarchy is None:
        return None, f"no memory cgroup controller under {root}: {missing}"
    if os.geteuid() != 0:
        return None, f"not root, so no memory cgroup can be made: {missing}"
    try:
        with MemoryCgroup(hierarchy, f"deferfs-bench-check-{os.getpid()}", limit_bytes):
            pass
    except EnvironmentProblem as problem:
        return None, f"{problem}: {missing}"
    return hierarchy, ""


def missing_for_mounts(device: Path = Path("/dev/fuse")) -> str:
    """What this machine lacks for mounts, in one line; empty if nothing."""
    if not device.exists():
        return f"{device} is missing; load the fuse module"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be opened by this user; run as root"
    if os.geteuid() != 0:
        return "not root"
    return ""
