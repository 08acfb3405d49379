"""The commands to make, mount and check other filesystems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deferfs.errors import EnvironmentProblem, UsageError

MIB: Final = 1 << 20
_SMALL_XFS: Final = (("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1"))
"""mkfs.xfs makes small filesystems only for its own tests, which it recognises by these variables."""


@dataclass(frozen=True, slots=True)
class Filesystem:
    """`make` and `check` are commands to which the device is appended; `check` exits with 0 when it finds nothing.
    `mount`, `unmount` and `sync` are commands to which device and mountpoint are appended.
    """

    name: str
    size: int
    make: tuple[str, ...]
    check: tuple[str, ...]
    mount: tuple[str, ...] = ()
    unmount: tuple[str, ...] = ("umount",)
    sync: tuple[str, ...] = ("sync", "--file-system")
    environment: tuple[tuple[str, str], ...] = ()
    package: str = ""

    def format(self, device: str) -> None:
        """Make it on `device`."""
        run([*self.make, device], dict(self.environment))

    def require_sound(self, device: str) -> str | None:
        """The complaints of its own checker about an unmounted device; None when there are none."""
        done = subprocess.run([*self.check, device], capture_output=True, text=True, errors="replace", check=False)
        return None if done.returncode == 0 else f"{' '.join(self.check)}: {done.returncode}: {done.stdout[-600:]}"


_DEFERFS: Final = (sys.executable, "-m", "deferfs")
FILESYSTEMS: Final = {
    found.name: found
    for found in (
        Filesystem(
            "ext4",
            24 * MIB,
            ("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
            ("e2fsck", "-fn"),
            ("mount", "-t", "ext4"),
            package="e2fsprogs",
        ),
        Filesystem(
            "xfs",
            64 * MIB,
            ("mkfs.xfs", "-q", "-f", "-K"),
            ("xfs_repair", "-n"),
            ("mount", "-t", "xfs"),
            environment=_SMALL_XFS,
            package="xfsprogs",
        ),
        Filesystem(
            "btrfs",
            128 * MIB,
            ("mkfs.btrfs", "-q", "-f", "-K"),
            ("btrfs", "check"),
            ("mount", "-t", "btrfs", "-o", "commit=300"),
            package="btrfs-progs",
        ),
        Filesystem(
            "deferfs",
            24 * MIB,
            (*_DEFERFS, "mkfs", "-q", "-f"),
            (*_DEFERFS, "fsck", "-n"),
            (*_DEFERFS, "mount", "-o", "commit=1"),
            (*_DEFERFS, "umount"),
            (*_DEFERFS, "sync"),
        ),
    )
}
"""Includes deferfs as a real mount, with its runtime, the kernel and the writeback cache."""


def filesystem(name: str) -> Filesystem:
    """The filesystem `name`. UsageError when it is unknown, EnvironmentProblem when it cannot be used here."""
    found = FILESYSTEMS.get(name)
    if found is None:
        raise UsageError(f"no such filesystem: {name}; there are {', '.join(FILESYSTEMS)}")
    missing = [command for command in (found.make[0], found.check[0]) if shutil.which(command) is None]
    if missing:
        raise EnvironmentProblem(f"{', '.join(missing)} is missing: install the package {found.package}")
    if os.geteuid() != 0:
        raise EnvironmentProblem("loop devices and mounts need root")
    module = "fuse" if name == "deferfs" else name
    if module not in _known_to_the_kernel():
        run(["modprobe", module], code=None)
        if module not in _known_to_the_kernel():
            raise EnvironmentProblem(f"the kernel does not know {module}")
    return found


def _known_to_the_kernel() -> list[str]:
    return Path("/proc/filesystems").read_text().split()


def run(command: list[str], environment: Mapping[str, str] | None = None, *, code: int | None = 0) -> str:
    """Run a program; its output. EnvironmentProblem when its exit code is not `code` (None: any)."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, **(environment or {})},
        process_group=0,  # an interrupt from the terminal must reach only us: we clean up
    )
    if code is not None and done.returncode != code:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise EnvironmentProblem(f"{' '.join(command)}: {done.returncode}: {said}")
    return done.stdout
