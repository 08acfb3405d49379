"""Checks of one crash image that do not depend on what it should hold.

It is sound before and after recovery, the state rebuilt in memory equals a full scan, inactivated orphans return all
their space, and a filesystem from which everything has been deleted has the space of a new one.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from deferfs.check import check_image
from deferfs.check.report import Counts, Report
from deferfs.crash.layout import Layout, layout_of
from deferfs.crash.model import ROOT, Node
from deferfs.crash.pages import PageDevice, Patch
from deferfs.crash.recoveries import MEMORY_BYTES, clock_after_crash
from deferfs.crash.tree import read_tree
from deferfs.device import Device, Record, RecordingDevice
from deferfs.ondisk.directory import COOKIE_DOTDOT
from deferfs.ondisk.inode import FIRST_INO
from deferfs.volume import attributes, namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode

_PROBLEMS_SHOWN: Final = 12
_SUPERBLOCK_COPY: Final = "superblock-copy"


class CrashError(AssertionError):
    """A crash image breaks a promise."""


@dataclass(slots=True)
class Examination:
    """Result for a sound image: its `tree` after recovery, without contents, and the `layout` of these. `reads` are the
    pages that the result depends on, as before recovery. The first `recovered` of `records` were written by the open,
    the others by the unmount.
    """

    tree: dict[int, Node]
    layout: Layout
    reads: Patch
    records: Sequence[Record]
    recovered: int


def require_sound(image: bytes | Device, when: str, *, trashed: bool = False) -> Counts:
    """CrashError unless the checker finds nothing; returns its counts. With `trashed` sectors, one copy of the
    superblock may be lost."""
    device = PageDevice([image], {}) if isinstance(image, bytes) else image
    report = check_image(device)
    problems = _problems(report, trashed=trashed)
    if problems or not report.complete:
        raise CrashError(f"unsound {when}: " + "; ".join(problems or ["it cannot be checked completely"]))
    return report.counts


def _problems(report: Report, *, trashed: bool) -> list[str]:
    return [
        f"{problem.code}: {problem.message}"
        for problem in report.problems[:_PROBLEMS_SHOWN]
        if not (trashed and problem.code == _SUPERBLOCK_COPY)
    ]


def open_volume(device: Device) -> Driver:
    """The volume on `device`, recovered."""
    return Driver.open(device, clock=clock_after_crash(), entropy=lambda: 7, memory_bytes=MEMORY_BYTES)


def examine(device: PageDevice, *, fresh_free: int | None = None, trashed: bool = False) -> Examination:
    """Recover the image, read it, unmount it. CrashError when a check fails.

    With `fresh_free`, the number of free blocks of a new filesystem of this kind, everything is deleted in the end.
    """
    device.reads = {}
    counts = require_sound(device, "before recovery", trashed=trashed)
    recording = RecordingDevice(device)
    driver = open_volume(recording)
    recovered = len(recording.records)
    _require_rebuilt(driver, counts)
    tree = read_tree(driver)
    layout = layout_of(driver, tree, device.page_bytes)
    unmount(driver, device)
    reads = device.reads
    device.reads = None
    if fresh_free is not None:
        require_usable(device, fresh_free)
    return Examination(tree, layout, reads, recording.records, recovered)


def _require_rebuilt(driver: Driver, counts: Counts) -> None:
    """Compare the state that the mount rebuilt in memory with a scan of the image."""
    volume = driver.volume
    store = volume.store
    for what, found, scanned in (
        ("free blocks", store.space.free_blocks, counts.free_blocks),
        ("orphans", store.orphans.count, counts.orphans),
        ("queued inactivations", volume.gc.backlog, counts.orphans),
        ("inodes", store.inodes.used, counts.inodes + FIRST_INO - 1),
    ):
        if found != scanned:
            raise CrashError(f"the mount knows of {found} {what}, a scan finds {scanned}")


def unmount(driver: Driver, device: Device) -> None:
    """Inactivate the orphans and unmount: the result is sound, without orphans, and statfs was right."""
    driver.collect()
    driver.commit()
    volume = driver.volume
    if volume.store.orphans.count or volume.gc.backlog:
        raise CrashError(f"{volume.store.orphans.count} orphans are left after inodegc")
    free = attributes.statfs(volume).free
    driver.close()
    counted = require_sound(device, "after unmount").free_blocks
    if counted != free:
        raise CrashError(f"statfs says {free} free blocks, a scan finds {counted}")


def require_usable(device: PageDevice, fresh_free: int) -> None:
    """Create, write, delete everything: the free space must be that of a new filesystem."""
    driver = open_volume(device)
    volume = driver.volume
    _empty(driver, ROOT)
    for name in driver.run(xattrs.listxattr, volume, ROOT):
        driver.run(xattrs.removexattr, volume, ROOT, name)
    driver.collect()
    driver.commit()
    ino = driver.run(namespace.create, volume, ROOT, b"new", NewInode(stat.S_IFREG | 0o600)).ino
    content = bytes(range(1, 256)) * 40
    driver.write(ino, 0, content)
    driver.run(namespace.create, volume, ROOT, b"directory", NewInode(stat.S_IFDIR | 0o700))
    driver.fsync(ino)
    if driver.read(ino, 0, len(content) + 1) != content:
        raise CrashError("a file written after the recovery reads otherwise")
    _empty(driver, ROOT)
    driver.collect()
    driver.commit()
    driver.close()
    free = require_sound(device, "after everything was deleted").free_blocks
    if free != fresh_free:
        raise CrashError(f"after everything was deleted {free} blocks are free, in a new filesystem {fresh_free}")


def _empty(driver: Driver, directory: int) -> None:
    volume = driver.volume
    for name, node_ino, mode in _entries(driver, directory):
        if stat.S_ISDIR(mode):
            _empty(driver, node_ino)
            driver.run(namespace.rmdir, volume, directory, name)
        else:
            driver.run(namespace.unlink, volume, directory, name)


def _entries(driver: Driver, directory: int) -> list[tuple[bytes, int, int]]:
    """(name, inode, file type) of each."""
    found = driver.run(lambda plan: list(namespace.readdir(plan, driver.volume, directory, COOKIE_DOTDOT)))
    return [(entry.name, entry.ino, entry.file_type << 12) for entry in found]
