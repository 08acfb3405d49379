"""A directory of an existing mount, in which passes work: brought to the same state each time.

It cannot be copied, so files to delete are made before a pass, and everything but the tree is removed after it. On
deferfs, the evict policy is restored.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deferfs.contract.statistics import Statistics
from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.host.machine import is_deferfs, process_memory_bytes
from deferfs.measure.mounts.daemon import Daemon
from deferfs.measure.mounts.syncing import sync_filesystem
from deferfs.measure.scenario import Surroundings
from deferfs.measure.work.victims import make_victims, name_victims_twice

OWED_SECONDS_MAX: Final = 300.0
POLL_SECONDS: Final = 0.02
DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")
KEPT: Final = "tree"
"""The entry that stays from pass to pass."""


@contextlib.contextmanager
def temporary_directory(parent: Path) -> Iterator[Path]:
    """A new directory in `parent`, removed with its content. EnvironmentProblem when it cannot be made."""
    try:
        root = Path(tempfile.mkdtemp(prefix="deferfs-bench-", dir=parent))
    except OSError as error:
        raise EnvironmentProblem(f"cannot work in {parent}: {error.strerror}") from error
    try:
        yield root
    finally:
        shutil.rmtree(root)


class StandingMount:
    """The directory `root`, which contains the tree, and in the block `victims` files to delete."""

    def __init__(self, root: Path, surroundings: Surroundings, victims: int) -> None:
        self.root = root
        self.resident_highest_bytes = 0
        self._victims = victims
        self._daemon = Daemon(root, surroundings) if is_deferfs(root) else None
        self._evict = ""

    def __enter__(self) -> StandingMount:
        if self._daemon is not None:
            self._evict = self._daemon.statistics().evict
            self._daemon.own()
        try:
            make_victims(self.root, self._victims)
            drop_dentries()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemon is not None:
            self.set("gc", "start")
            self.set("evict", self._evict)
        self._clear()

    def name_victims_twice(self) -> None:
        """Give each a second name, so that its deletion leaves nothing to clean up."""
        name_victims_twice(self.root, self._victims)

    def statistics(self) -> Statistics | None:
        """The daemon's statistics; None for another filesystem than deferfs."""
        return None if self._daemon is None else self._daemon.statistics()

    def set(self, key: str, value: str) -> None:
        """As `deferfs ctl KEY=VALUE`."""
        assert self._daemon is not None, "no deferfs is mounted there"
        self._daemon.set(key, value)

    def disk_counters(self) -> dict[str, int]:
        """Empty: IO of an existing mount is not counted."""
        return {}

    def close(self) -> float:
        """Wait until all cleanups are done and everything is on the disk; returns the time that took, in seconds."""
        start = time.monotonic()
        if self._daemon is not None:
            self.set("gc", "start")
            self._wait_paid(start)
        sync_filesystem(self.root)
        return time.monotonic() - start

    def _wait_paid(self, start: float) -> None:
        while statistics := self.statistics():
            self.resident_highest_bytes = process_memory_bytes(statistics.pid)
            gc = statistics.gc
            if not gc.queued + gc.times_owed + statistics.inodes.inactivating:
                return
            if time.monotonic() - start > OWED_SECONDS_MAX:
                raise DeferfsError(f"{self.root}: after {OWED_SECONDS_MAX:.0f} s there is still something to clean up")
            time.sleep(POLL_SECONDS)

    def _clear(self) -> None:
        for entry in self.root.iterdir():
            if entry.name == KEPT:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def drop_dentries() -> None:
    """Make the tree cold, so that the workload's cgroup is charged only for entries that it brings in itself.

    Needs root and drops the clean dentries and inodes of the whole machine, once before a run; without root the run
    uses what is cached.
    """
    os.sync()
    try:
        DROP_CACHES.write_text("2")
    except OSError:
        pass
