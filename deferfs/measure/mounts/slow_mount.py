"""A deferfs mounted from a slow disk for the length of a `with` block: used by every pass inside deferfs.

Each pass gets a fresh sparse copy of a prepared image, a slow disk over it, and a daemon of its own, so that nothing is
cached at its start and nothing is left at its end.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from deferfs.contract.statistics import Statistics
from deferfs.measure.host.belongings import Belongings
from deferfs.measure.host.cgroup import MemoryCgroup
from deferfs.measure.host.commands import copy_image, preloaded_commands, run_deferfs
from deferfs.measure.host.machine import process_memory_bytes
from deferfs.measure.mounts.daemon import Daemon
from deferfs.measure.mounts.filesystems import FILESYSTEMS, mounted, unmount_deferfs
from deferfs.measure.scenario import Surroundings
from deferfs.measure.slow_disk import SlowDisk
from deferfs.measure.work.filling import filling

DRAIN_SECONDS: Final = 600
"""Time limit of the unmount's cleanup, which must finish."""
DEFERFS: Final = FILESYSTEMS["deferfs"]


class SlowMount:
    """A mounted filesystem and its disk."""

    def __init__(self, root: Path, disk: SlowDisk, surroundings: Surroundings) -> None:
        self.root = root
        self.disk = disk
        self._daemon = Daemon(root, surroundings)
        self.pid = self._daemon.own()
        self.resident_highest_bytes = 0
        self.set("drain", str(DRAIN_SECONDS))

    def statistics(self) -> Statistics:
        """The daemon's statistics."""
        return self._daemon.statistics()

    def set(self, key: str, value: str) -> None:
        """As `deferfs ctl KEY=VALUE`."""
        self._daemon.set(key, value)

    def disk_counters(self) -> dict[str, int]:
        """Counters of the disk since its start."""
        return self.disk.counters()

    def close(self) -> float:
        """Unmount, which finishes all cleanups and writes everything home; returns the time that took, in seconds.
        `DeferfsError` when the image is not clean afterwards.
        """
        self.resident_highest_bytes = process_memory_bytes(self.pid)
        start = time.monotonic()
        unmount_deferfs(self.root)
        return time.monotonic() - start


@contextlib.contextmanager
def prepared_image(
    surroundings: Surroundings, fill: Callable[[Path], object], size: str = "2G"
) -> Iterator[Callable[[], Path]]:
    """An image of `size` for the length of the block, in which commands are preloaded. `fill(root)` makes its files, in
    a process of its own and on a disk without delay, beside the block, until that calls what it gets: the first call
    waits, and unmounts the image; all return its path. WorkerError when it could not be filled.
    """
    image, root = surroundings.scratch / "prepared.img", surroundings.scratch / "prepared"
    with Belongings() as belongings:
        belongings.acquire(preloaded_commands())
        belongings.callback(image.unlink, missing_ok=True)
        run_deferfs(["mkfs", str(image), "--size", size])
        root.mkdir()
        belongings.callback(root.rmdir)
        mounts = belongings.acquire(Belongings())
        mounts.acquire(mounted(DEFERFS, image, root))
        filled = mounts.acquire(filling(root, fill))

        @functools.cache
        def finished() -> Path:
            filled()
            mounts.close()
            return image

        yield finished


@contextlib.contextmanager
def slow_mount(
    image: Path, options: Sequence[str], surroundings: Surroundings, cgroup: MemoryCgroup | None = None
) -> Iterator[SlowMount]:
    """A copy of `image` on a slow disk, mounted with `options`. With `cgroup` the daemon runs in it. Everything is
    removed in any case.
    """
    directory = surroundings.scratch / "pass"
    root = directory / "mnt"
    with Belongings() as belongings:
        root.mkdir(parents=True)
        belongings.callback(shutil.rmtree, directory)
        copy = directory / "image"
        copy_image(image, copy)
        disk = belongings.acquire(SlowDisk(copy, surroundings.disk, directory, surroundings.own, surroundings.seed))
        enter = None if cgroup is None else lambda: cgroup.add(os.getpid())
        belongings.acquire(mounted(DEFERFS, disk.device, root, ",".join(options), enter))
        # after a failure the disk must be fast before the unmount: cleaning up is not what is measured
        belongings.callback(disk.set_preset, "none")
        yield SlowMount(root, disk, surroundings)
