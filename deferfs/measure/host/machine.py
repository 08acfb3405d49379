"""The machine that a benchmark ran on, as far as it affects the numbers."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import deferfs
from deferfs.measure.results import Machine


def describe_machine(scratch: Path) -> Machine:
    """Facts about this machine; `scratch` is where the image or the tree is."""
    return Machine(
        kernel=platform.release(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        python=platform.python_version(),
        deferfs=deferfs.__version__,
        scratch_filesystem=filesystem_type(scratch, os.fsdecode(Path("/proc/self/mountinfo").read_bytes())),
    )


def filesystem_type(path: Path, mountinfo: str) -> str:
    """The type of the filesystem that holds `path`, from the text of a mountinfo file; `unknown` when in doubt."""
    resolved = path.resolve()
    best, found = -1, "unknown"
    for line in filter(None, mountinfo.split("\n")):
        fields, _, rest = line.partition(" - ")
        mountpoint = Path(fields.split(" ")[4].replace("\\040", " "))
        depth = len(mountpoint.parts)
        if depth >= best and resolved.is_relative_to(mountpoint):
            best, found = depth, rest.split(" ")[0]
    return found


def is_deferfs(path: Path) -> bool:
    """Whether `path` is in a mounted deferfs."""
    return filesystem_type(path, os.fsdecode(Path("/proc/self/mountinfo").read_bytes())) == "fuse.deferfs"


def process_memory_bytes(pid: int, field: str = "VmHWM") -> int:
    """A memory line of /proc/PID/status in bytes: `VmRSS` now, `VmHWM` the peak; 0 when the process has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    for line in text.split(b"\n"):  # the kernel escapes line feeds in names, but no other line separators
        if line.startswith(f"{field}:".encode()):
            return int(line.split()[1]) * 1024
    return 0
