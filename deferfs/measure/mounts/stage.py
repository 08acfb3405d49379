"""Prepared filesystems, mounted on a slow disk, one pass after the other.

Each filesystem is made and filled once, on a loop device as fast as the machine. A pass works on a copy of that image
behind a `SlowDisk`, which is switched to its preset after all setup that is not measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure import slow_disk
from deferfs.measure.host.belongings import Belongings
from deferfs.measure.host.commands import copy_image, preloaded_commands
from deferfs.measure.mounts import filesystems
from deferfs.measure.mounts.daemon import daemon_of
from deferfs.measure.mounts.filesystems import FILESYSTEMS, Filesystem
from deferfs.measure.scenario import Side, Surroundings
from deferfs.measure.slow_disk import SlowDisk
from deferfs.measure.work.filling import filling

FAST: Final = "none"
KERNEL_SIDES: Final = (
    Side("ext4", "ext4", "kernel"),
    Side("xfs", "XFS", "kernel"),
    Side("btrfs", "btrfs", "kernel"),
)
DEFERFS_SIDES: Final = (
    Side("inline", "deferfs, inline", "inline"),
    Side("deferred", "deferfs, deferred", "deferred"),
)
FLOOR: Final = Side("tmpfs", "tmpfs", "floor")
SIDES: Final = (*KERNEL_SIDES, *DEFERFS_SIDES, FLOOR)
"""tmpfs is the floor: the same operations without anything to clean up on a disk."""
SLAB_INFO: Final = Path("/proc/slabinfo")


def filesystem_of(side: Side) -> Filesystem:
    """The filesystem of a side of `SIDES`."""
    return FILESYSTEMS["deferfs" if side.role in ("inline", "deferred") else side.name]


def missing(side: Side) -> str:
    """One line that says what this machine lacks to mount `side` on a slow disk; empty when nothing."""
    filesystem = filesystem_of(side)
    return filesystems.missing(filesystem) or (slow_disk.missing() if filesystem.on_device else "")


class Mounted(msgspec.Struct, frozen=True):
    """A filesystem on its disk. `disk` is None without one (tmpfs)."""

    root: Path
    disk: SlowDisk | None
    mounts: Belongings
    """Closing it unmounts the filesystem, and other mounts over it; the disk stays."""

    def set_preset(self, preset: str) -> None:
        """Set the latency of the disk to `preset`."""
        if self.disk is not None:
            self.disk.set_preset(preset)

    def disk_counters(self) -> dict[str, int]:
        """Counters of the disk; empty without one."""
        return self.disk.counters() if self.disk is not None else {}


class Stage:
    """Prepared images, and the mountpoint for a copy of one."""

    def __init__(self, surroundings: Surroundings, size: int, fill: Callable[[Path], None]) -> None:
        """`fill(root)` makes the files of an empty filesystem of `size` bytes, in a process of its own."""
        self.surroundings = surroundings
        self._size = size
        self._fill = fill
        self.mountpoint = surroundings.scratch / "mnt"
        self.merged = surroundings.scratch / "merged"
        self.empty = surroundings.scratch / "empty"

    def prepare(self, sides: Iterable[Side]) -> None:
        """Make the image of each side that this machine can mount."""
        for directory in (self.mountpoint, self.merged, self.empty):
            directory.mkdir(exist_ok=True)
        wanted = {filesystem_of(side).name: filesystem_of(side) for side in sides if not missing(side)}
        on_device = [one for one in wanted.values() if one.on_device]
        with contextlib.ExitStack() as making:  # all at once: a daemon and its client keep one processor busy together
            # that of deferfs, the last side, takes longest
            for filled in [making.enter_context(self._made(one)) for one in reversed(on_device)]:
                filled()

    @contextlib.contextmanager
    def _made(self, filesystem: Filesystem) -> Iterator[Callable[[], None]]:
        """Make the image; in the block it is mounted and being filled. Yields what waits for the end of that."""
        self.surroundings.tell(f"preparing {filesystem.name}")
        image, mountpoint = self._image(filesystem), self.surroundings.scratch / filesystem.name
        with image.open("wb") as file:
            file.truncate(max(self._size, filesystem.smallest_bytes))
        with Belongings() as belongings:
            mountpoint.mkdir()
            belongings.callback(mountpoint.rmdir)
            # deferfs uses the file; kernel filesystems need a device
            device = image if filesystem.name == "deferfs" else belongings.acquire(filesystems.loop_device(image))
            filesystems.make(filesystem, device)
            root = belongings.acquire(filesystems.mounted(filesystem, device, mountpoint))
            if filesystem.name == "deferfs":
                daemon_of(root, self.surroundings)
            yield belongings.acquire(filling(root, self._fill))

    @contextlib.contextmanager
    def mounted(self, side: Side, options: Iterable[str] = ()) -> Iterator[Mounted]:
        """The prepared filesystem of `side`, on a disk that is still fast, with further mount options. Without a disk
        (tmpfs) it is empty."""
        filesystem = filesystem_of(side)
        words = [*options, *([f"evict={side.name}"] if filesystem.name == "deferfs" else [])]
        with Belongings() as belongings:
            disk = None
            device = Path("tmpfs")
            if filesystem.on_device:
                copy = self.surroundings.scratch / "run.img"
                belongings.callback(copy.unlink, missing_ok=True)
                copy_image(self._image(filesystem), copy)
                scratch = self.surroundings.scratch
                disk = belongings.acquire(SlowDisk(copy, FAST, scratch, self.surroundings.own))
                device = disk.device
            mounts = belongings.acquire(Belongings())
            root = mounts.acquire(filesystems.mounted(filesystem, device, self.mountpoint, ",".join(words)))
            if disk is not None:
                # after a failure, unmount first: cleaning up is not what is measured
                belongings.callback(mounts.close)
                belongings.callback(disk.set_preset, FAST)
            if filesystem.name == "deferfs":
                daemon_of(root, self.surroundings)
            yield Mounted(root, disk, mounts)

    def _image(self, filesystem: Filesystem) -> Path:
        return self.surroundings.scratch / f"{filesystem.name}.img"


@contextlib.contextmanager
def prepared_stage(
    surroundings: Surroundings, size: int, fill: Callable[[Path], None], sides: Iterable[Side]
) -> Iterator[Stage]:
    """A stage with its images, with commands preloaded; images and mountpoints are removed afterwards."""
    with preloaded_commands():
        stage = Stage(surroundings, size, fill)
        try:
            stage.prepare(sides)
            yield stage
        finally:
            for name in {filesystem.name for filesystem in FILESYSTEMS.values()}:
                (surroundings.scratch / f"{name}.img").unlink(missing_ok=True)
            for directory in (stage.mountpoint, stage.merged, stage.empty):
                with contextlib.suppress(FileNotFoundError):
                    directory.rmdir()


def slab_objects(cache: str, text: str | None = None) -> int:
    """Objects of a slab cache in use on the whole machine; 0 when that cannot be read."""
    try:
        lines = (SLAB_INFO.read_text() if text is None else text).splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[0] == cache), 0)
