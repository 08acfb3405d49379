"""A deferfs that is mounted from a slow disk while a `with` block lasts: what every pass inside of deferfs works on.

Each pass gets a fresh sparse copy of a prepared image, a slow disk over it, and a daemon of its own, so that nothing
is cached at its start and nothing is left at its end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from deferfs.errors import DeferfsError
from deferfs.measure.cgroup import MemoryCgroup
from deferfs.measure.machine import process_memory_bytes
from deferfs.measure.scenario import Surroundings
from deferfs.measure.slow_disk import SlowDisk
from deferfs.measure.targets import copy_image, deferfs_command, run_command

Statistics = dict[str, Any]
"""The object that `deferfs stat --json` prints."""

DRAIN_SECONDS: Final = 600
"""An unmount pays everything that is owed, however long that takes."""
UNMOUNT_SECONDS_MAX: Final = 900.0


class SlowMount:
    """A mounted filesystem and its disk."""

    def __init__(self, root: Path, disk: SlowDisk, surroundings: Surroundings) -> None:
        self.root = root
        self.disk = disk
        self._surroundings = surroundings
        self.pid = int(self.statistics()["pid"])
        self.resident_highest_bytes = 0
        surroundings.own(self.pid)
        self.set("drain", str(DRAIN_SECONDS))

    def statistics(self) -> Statistics:
        """What the daemon says about itself."""
        answer = self._surroundings.ask(self.root, "stat")
        assert isinstance(answer, dict)
        return answer

    def set(self, key: str, value: str) -> None:
        """As `deferfs ctl KEY=VALUE`."""
        self._surroundings.ask(self.root, "set", key=key, value=value)

    def disk_counters(self) -> dict[str, int]:
        """What the disk has done since its start."""
        return self.disk.counters()

    def close(self) -> float:
        """Unmount, which pays all that is owed and brings it home; how long that took, in seconds. `DeferfsError` when
        the image is not clean afterwards.
        """
        self.resident_highest_bytes = process_memory_bytes(self.pid)
        start = time.monotonic()
        _unmount(self.root)
        return time.monotonic() - start


@contextlib.contextmanager
def prepared_image(path: Path, size: str) -> Iterator[Path]:
    """A new image at `path`, mounted inside the block, on a directory that the block gets. The image stays."""
    run_command([*deferfs_command(), "mkfs", str(path), "--size", size])
    root = path.with_suffix(".mnt")
    root.mkdir()
    try:
        run_command([*deferfs_command(), "mount", str(path), str(root)])
        yield root
    finally:
        if os.path.ismount(root):
            _unmount(root)
    root.rmdir()


@contextlib.contextmanager
def slow_mount(
    image: Path, options: Sequence[str], surroundings: Surroundings, cgroup: MemoryCgroup | None = None
) -> Iterator[SlowMount]:
    """A copy of `image` on a slow disk, mounted with `options`. With `cgroup` the daemon runs inside of it. Whatever
    happens, nothing of it is left.
    """
    directory = surroundings.scratch / "pass"
    root = directory / "mnt"
    root.mkdir(parents=True)
    try:
        copy = directory / "image"
        copy_image(image, copy)
        with SlowDisk(copy, surroundings.disk, directory, surroundings.own, surroundings.seed) as disk:
            try:
                command = [*deferfs_command(), "mount", str(disk.device), str(root), "-o", ",".join(options)]
                run_command(command, enter=None if cgroup is None else lambda: cgroup.add(os.getpid()))
                yield SlowMount(root, disk, surroundings)
            finally:
                _leave(root, disk)
    finally:
        shutil.rmtree(directory)


def _unmount(root: Path) -> None:
    run_command([*deferfs_command(), "umount", str(root)], UNMOUNT_SECONDS_MAX)


def _leave(root: Path, disk: SlowDisk) -> None:
    """After a pass that has failed: unmount, quickly; what cannot be unmounted goes with its last user."""
    if not os.path.ismount(root):
        return
    with contextlib.suppress(DeferfsError):
        disk.set_preset("none")
    try:
        _unmount(root)
    except BaseException:
        subprocess.run(["umount", "--lazy", str(root)], check=False, capture_output=True)
        raise
