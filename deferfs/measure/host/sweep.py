"""Leftovers of an interrupted pass: mounts below the scratch directory, loop devices on files in it, cgroups.

A scenario undoes what it does. But an interrupt may come between acquiring a resource and recording it, so in the end
the harness searches for leftovers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from deferfs.device.identity import identity_of
from deferfs.device.loop import attached_loops
from deferfs.measure.host.cgroup import Hierarchy
from deferfs.measure.host.commands import deferfs_command

ATTEMPTS: Final = 50
PAUSE_SECONDS: Final = 0.1
COMMAND_SECONDS_MAX: Final = 120


def mounts_below(directory: Path, mountinfo: str) -> list[tuple[Path, str]]:
    """Mountpoints in `directory` with the type of each, from the text of a mountinfo file; last mounted first."""
    found = []
    for line in filter(None, mountinfo.split("\n")):
        fields, _, rest = line.partition(" - ")
        text = fields.split(" ")[4].encode("ascii", "surrogateescape")
        raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)
        mountpoint = Path(os.fsdecode(raw))
        if mountpoint.is_relative_to(directory):
            found.append((mountpoint, rest.split(" ")[0]))
    return found[::-1]


def loops_below(directory: Path, block: Path = Path("/sys/block")) -> list[str]:
    """The names of loop devices whose file is in `directory`: by path, which works for a deleted file, and by device
    and inode number, as the kernel reports another path in a chroot.
    """
    files = {identity_of(str(file)) for file in _files_below(directory)}
    inside = {Path(device).name for device, backing in attached_loops() if backing.image in files}
    found = []
    for backing_file in block.glob("loop*/loop/backing_file"):
        try:
            path = Path(os.fsdecode(backing_file.read_bytes().rstrip(b"\n")).removesuffix(" (deleted)"))
        except OSError:
            continue
        name = backing_file.parts[-3]
        if path.is_relative_to(directory) or name in inside:
            found.append(name)
    return found


def _files_below(directory: Path) -> Iterator[Path]:
    """Files that may be attached to a loop device: not those of a filesystem mounted below."""
    for root, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if not os.path.ismount(Path(root, name))]
        yield from (path for name in names if (path := Path(root, name)).is_file() and not path.is_symlink())


def cgroups_of(pid: int, hierarchy: Hierarchy) -> Iterator[Path]:
    """Cgroups named deferfs-...-PID, possibly with a suffix."""
    name = re.compile(rf"deferfs-(?:.*-)?{pid}(?!\d)")
    for directory in dict.fromkeys((hierarchy.memory, hierarchy.pressure or hierarchy.memory)):
        yield from sorted(path for path in directory.glob(f"deferfs-*{pid}*") if name.match(path.name))


def sweep(scratch: Path, hierarchy: Hierarchy | None, tell: Callable[[str], None]) -> None:
    """Undo leftovers, and remove `scratch`. Prints what cannot be undone."""
    directory = scratch.resolve()
    for mountpoint, kind in mounts_below(directory, _mountinfo()):
        tell(f"unmounting {mountpoint}, which was left mounted")
        command = [*deferfs_command(), "umount"] if "deferfs" in kind else ["umount"]
        _persist(lambda command=command, mountpoint=mountpoint: _run([*command, str(mountpoint)]))  # type: ignore[misc]
    for name in loops_below(directory):
        tell(f"detaching /dev/{name}, which was left attached")
        _run(["losetup", "--detach", f"/dev/{name}"])
    for cgroup in cgroups_of(os.getpid(), hierarchy) if hierarchy else ():
        tell(f"removing the cgroup {cgroup}, which was left")
        _persist(lambda cgroup=cgroup: _remove_cgroup(cgroup))  # type: ignore[misc]
    left = [str(mountpoint) for mountpoint, _ in mounts_below(directory, _mountinfo())]
    if left:
        tell(f"still mounted: {', '.join(left)}; unmount it, then remove {scratch}")
    else:
        shutil.rmtree(scratch, ignore_errors=True)


def _mountinfo() -> str:
    return os.fsdecode(Path("/proc/self/mountinfo").read_bytes())


def _persist(attempt: Callable[[], bool]) -> None:
    """Retry for some seconds: processes being ended use resources for a moment longer."""
    for _ in range(ATTEMPTS):
        if attempt():
            return
        time.sleep(PAUSE_SECONDS)


def _run(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=COMMAND_SECONDS_MAX, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _remove_cgroup(cgroup: Path) -> bool:
    """Remove a cgroup; whether it is gone. Its processes are our workers, which are killed."""
    try:
        for pid in (cgroup / "cgroup.procs").read_text().split():
            if int(pid) != os.getpid():
                os.kill(int(pid), signal.SIGKILL)
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
