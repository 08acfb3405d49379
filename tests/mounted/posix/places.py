"""Where the tables run: mounts of deferfs in each combination of modes, and of ext4 and XFS on loop devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mounted.scratch import Scratch, run

IMAGE_SIZE = "1G"
_OPTIONS = ("dev", "suid")
_MAKE = {"ext4": ("mkfs.ext4", "-q", "-O", "ea_inode"), "xfs": ("mkfs.xfs", "-q")}
"""How to make the others: ext4 stores values of 64 KiB only with ea_inode."""


@dataclass
class Place:
    """An empty directory on a mounted filesystem. `names` are those that rows are tagged with."""

    names: str
    directory: Path
    remount: Callable[[], None]
    """Unmount, check, mount again."""


@contextmanager
def deferfs_place(base: Path, *, writeback: bool, evict: str, rootonly: bool = False) -> Iterator[Place]:
    """deferfs, with permission checks by the kernel, or (`rootonly`) as root mounts it for himself: without."""
    scratch = Scratch(base, evict=evict, size=IMAGE_SIZE)
    options = (*_OPTIONS, f"writeback_cache={'on' if writeback else 'off'}", "rw" if rootonly else "allow_other")
    names = f"deferfs,{'writeback' if writeback else 'through'}{',rootonly' if rootonly else ''}"

    def remount() -> None:
        scratch.remount(*options)

    try:
        directory = scratch.mount(*options) / "place"
        directory.mkdir()
        yield Place(names, directory, remount)
        scratch.unmount_and_check()
    finally:
        scratch.end()


@contextmanager
def loop_place(base: Path, kind: str) -> Iterator[Place]:
    """ext4 or XFS on a loop device; skips where the kernel does not know it."""
    base.mkdir()
    image, mountpoint = base / "image", base / "mnt"
    mountpoint.mkdir()
    run("truncate", "-s", IMAGE_SIZE, image)
    run(*_MAKE[kind], image)

    def mount() -> None:
        done = run("mount", "-t", kind, "-o", "loop", image, mountpoint, code=None)
        if "unknown filesystem type" in done.stderr:
            pytest.skip(f"the kernel does not know {kind}")
        assert done.returncode == 0, done.stderr

    def remount() -> None:
        run("umount", mountpoint)
        mount()

    mount()
    try:
        directory = mountpoint / "place"
        directory.mkdir()
        yield Place(kind, directory, remount)
    finally:
        run("umount", mountpoint)


@contextmanager
def place(base: Path, name: str) -> Iterator[Place]:
    """`ext4`, `xfs`, or `deferfs-CACHE-EVICT` with CACHE `writeback` or `through`, and perhaps `-rootonly` behind."""
    if name in _MAKE:
        with loop_place(base, name) as found:
            yield found
    else:
        _, cache, evict, *rest = name.split("-")
        with deferfs_place(base, writeback=cache == "writeback", evict=evict, rootonly="rootonly" in rest) as found:
            yield found
