"""Is a mount with very many orphans usable as soon as a clean one?

Orphans are deleted files left by a crash while they were open, or by an unmount without time to clean up. They are made
in both ways: processes open files and delete them; then either the filesystem is synced and its daemon killed, or
inodegc is stopped, the files are closed, and the unmount is given no time. Copies of that image and of its clean
counterpart are mounted in turn; a mount counts as usable when a file has been created on it. After a crash there is
also a log to replay, with or without orphans; an unmount leaves none, so that the two differ only in the orphans.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from deferfs.errors import DeferfsError
from deferfs.measure.host.commands import copy_image, run_deferfs
from deferfs.measure.mounts.daemon import statistics_of
from deferfs.measure.mounts.rivals import Deferfs, mounted
from deferfs.measure.mounts.syncing import sync_filesystem
from deferfs.measure.scenario import Ask
from deferfs.measure.stats.statistics import RatioSummary, summarize_ratios

DRAIN_SECONDS_MAX: Final = 600.0
"""Longest wait until all orphans are gone."""
DESCRIPTORS_SPARE: Final = 100
"""Descriptors that the process that holds the orphans keeps for other files."""
KILL_SECONDS_MAX: Final = 30.0
"""Longest wait for the end of a killed daemon."""


class Orphans(msgspec.Struct, frozen=True):
    """Seconds until usable, pair by pair, and `drain`: until the orphans were gone after that. `left_by`: a crash or
    an unmount."""

    left_by: str
    orphans: int
    with_orphans: list[float]
    clean: list[float]
    ratio: RatioSummary
    drain: list[float]


def measure_orphans(
    home: Path, orphans: int, pairs: int, *, crash: bool, ask: Ask, tell: Callable[[str], None]
) -> Orphans:
    """Make both images in `home`, which must be empty, and mount them in turn."""
    filesystem = Deferfs()
    image, mountpoint = home / "image", home / "mnt"
    mountpoint.mkdir()
    filesystem.make(home)
    dirty, clean = home / "orphans.img", home / "clean.img"
    _make_orphans(filesystem, home, mountpoint, orphans, crash=crash, ask=ask)
    copy_image(image, dirty)
    with mounted(filesystem, home, mountpoint):
        _wait_drained(mountpoint, ask)
    copy_image(image, clean)
    taken: dict[Path, list[float]] = {dirty: [], clean: []}
    drains = []
    for pair in range(1, pairs + 1):
        for source in (dirty, clean):
            tell(f"pair {pair} of {pairs}: {source.stem}")
            copy_image(source, image)
            start = time.monotonic()
            with mounted(filesystem, home, mountpoint):
                (mountpoint / "usable").touch()
                usable = time.monotonic()
                taken[source].append(usable - start)
                if source is dirty:
                    _wait_drained(mountpoint, ask)
                    drains.append(time.monotonic() - usable)
    ratio = summarize_ratios(taken[dirty], taken[clean])
    assert ratio is not None
    return Orphans("crash" if crash else "unmount", orphans, taken[dirty], taken[clean], ratio, drains)


def _make_orphans(filesystem: Deferfs, home: Path, mountpoint: Path, count: int, *, crash: bool, ask: Ask) -> None:
    """Leave `count` deleted files in the image, and no daemon that serves it."""
    filesystem.mount(home, mountpoint)
    holders: list[tuple[int, int, int]] = []
    try:
        each = _descriptors_max()
        for first in range(0, count, each):
            holders.append(_start_holder(mountpoint, first, min(each, count - first)))
        for _, ready, _ in holders:
            if os.read(ready, 1) != b"+":
                raise DeferfsError(f"{mountpoint}: the files to orphan could not be made")
        sync_filesystem(mountpoint)
        if crash:
            _kill(statistics_of(mountpoint, ask).pid)
        else:
            run_deferfs(["ctl", str(mountpoint), "gc=stop", "drain=0"])
    finally:
        for _, ready, stop in holders:
            os.close(ready)
            os.close(stop)  # later holders have inherited it, so all must be closed before one is waited for
        for pid, _, _ in reversed(holders):
            os.waitpid(pid, 0)
        if not crash:
            _wait_forgotten(mountpoint, count, ask)
        run_deferfs(["umount", str(mountpoint)])


def _descriptors_max() -> int:
    """Maximum of files that one process may hold open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - DESCRIPTORS_SPARE


def _start_holder(mountpoint: Path, first: int, count: int) -> tuple[int, int, int]:
    """A process that makes files, deletes them and holds them open: (pid, pipe on which it reports, pipe to close when
    it is to end)."""
    ready_read, ready_write = os.pipe()
    stop_read, stop_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready_write)
        os.close(stop_read)
        return pid, ready_read, stop_write
    try:
        os.close(stop_write)
        for index in range(first, first + count):
            path = f"{mountpoint}/{index}"
            os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            os.unlink(path)
        os.write(ready_write, b"+")
        os.read(stop_read, 1)
    finally:
        os._exit(0)


def _kill(pid: int) -> None:
    """Kill a daemon that we started, and wait until it has released its image."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        ended = select.poll()  # select(2) is limited to descriptors up to 1023, and the orphans need more
        ended.register(process, select.POLLIN)
        if not ended.poll(KILL_SECONDS_MAX * 1000):
            raise DeferfsError(f"process {pid} does not end")
    finally:
        os.close(process)


def _wait_forgotten(mountpoint: Path, count: int, ask: Ask) -> None:
    """Wait until the kernel has forgotten every deleted file."""
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    while statistics_of(mountpoint, ask).gc.queued < count:
        if time.monotonic() > deadline:
            raise DeferfsError(f"{mountpoint}: the kernel still holds deleted files")
        time.sleep(0.05)


def _wait_drained(mountpoint: Path, ask: Ask) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    while True:
        statistics = statistics_of(mountpoint, ask)
        if not statistics.gc.queued + statistics.inodes.inactivating:
            return
        if time.monotonic() > deadline:
            raise DeferfsError(f"{mountpoint}: orphans are left after {DRAIN_SECONDS_MAX:.0f} s")
        time.sleep(0.05)
