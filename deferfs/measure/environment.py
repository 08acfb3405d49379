"""What this machine lets a benchmark do, found out before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

from deferfs.errors import EnvironmentProblem
from deferfs.measure.cgroup import CGROUP_ROOT, Hierarchy, MemoryCgroup, find_hierarchy


def usable_hierarchy(limit_bytes: int, root: Path = CGROUP_ROOT) -> tuple[Hierarchy | None, str]:
    """The hierarchy for a memory cgroup of this size, tried out; or None and one line that says
    what is missing.
    """
    missing = "every run is without a memory limit, so the kernel drops dentries only by chance"
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


def check_fuse(device: Path = Path("/dev/fuse")) -> None:
    """EnvironmentProblem when nothing can be mounted here."""
    if not device.exists():
        raise EnvironmentProblem(
            f"{device} is missing, so deferfs cannot be mounted; load the fuse module, "
            "or measure a mounted filesystem by --target DIR"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise EnvironmentProblem(f"{device} may not be opened by this user; run as root")
