"""A memory cgroup of our own, version 1 or 2: created, filled with processes, read, removed.

Version 1 has the limit and its counters in the memory hierarchy and, on most systems, pressure files in the unified
hierarchy beside it; the processes then join a cgroup in each. Version 2 has everything in one place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from deferfs.errors import EnvironmentProblem
from deferfs.measure.host.pressure import Pressure, read_pressure

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
PRESSURES: Final = ("memory", "cpu", "io")
REMOVE_ATTEMPTS: Final = 100
"""An emptied cgroup stays busy until its last process has been reaped: 100 times 20 ms."""
REMOVE_PAUSE_SECONDS: Final = 0.02
KEPT_STATISTICS: Final = frozenset(
    (
        *("cache", "rss", "anon", "file", "kernel", "slab"),
        *("slab_reclaimable", "slab_unreclaimable", "file_dirty", "dirty"),
        *("pgfault", "pgmajfault", "pgpgin", "pgpgout"),
        *("pgscan", "pgsteal", "pgscan_direct", "pgsteal_direct"),
    )
)


class Hierarchy(msgspec.Struct, frozen=True):
    """Where memory cgroups are: `version` 1 or 2; `pressure` is the hierarchy with PSI files, if any."""

    version: Literal[1, 2]
    memory: Path
    pressure: Path | None


class MemoryReading(msgspec.Struct, frozen=True):
    """Counters of a memory cgroup at one moment.

    `limit_hits`: charges that ran into the limit (v1 `memory.failcnt`, v2 `max` of
    `memory.events`). `statistics`: the lines of `memory.stat` that say what the memory is used
    for, in bytes or events.
    """

    usage_bytes: int
    usage_bytes_max: int
    limit_hits: int
    oom_kills: int
    kernel_bytes: int
    statistics: dict[str, int]
    pressure: dict[str, Pressure]


def parse_flat_keyed(text: str) -> dict[str, int]:
    """`key value` lines, as in memory.stat and memory.events; other lines are skipped."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.strip().lstrip("-").isdigit():
            values[key] = int(value)
    return values


def find_hierarchy(root: Path = CGROUP_ROOT) -> Hierarchy | None:
    """The hierarchy that has the memory controller under `root`, or None."""
    controllers = _words(root / "cgroup.controllers")
    if "memory" in controllers:
        return Hierarchy(2, root, root)
    if (root / "memory" / "memory.limit_in_bytes").exists():
        unified = root / "unified"
        return Hierarchy(1, root / "memory", unified if (unified / "cgroup.procs").exists() else None)
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _read_int(path: Path) -> int:
    """The number in `path`; 0 where the file is missing or says `max`."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else 0


class MemoryCgroup:
    """One cgroup with a memory limit, for the length of a `with` block. `limit_bytes` None: no limit until one is set.

    **Invariant:** between `__enter__` and `__exit__` the directories in `_directories` exist and are ours; after
    `__exit__` none of them does.
    """

    def __init__(self, hierarchy: Hierarchy, name: str, limit_bytes: int | None) -> None:
        self.hierarchy = hierarchy
        self.limit_bytes = limit_bytes
        self._memory = hierarchy.memory / name
        self._directories = [self._memory]
        self._pressure = self._memory
        if hierarchy.version == 1 and hierarchy.pressure is not None:
            self._pressure = hierarchy.pressure / name
            self._directories.append(self._pressure)

    def __enter__(self) -> MemoryCgroup:
        made: list[Path] = []
        try:
            for directory in self._directories:
                _make(directory)
                made.append(directory)
            self._set_up()
        except BaseException as error:
            for directory in reversed(made):
                _remove(directory)
            if not isinstance(error, OSError):
                raise
            raise EnvironmentProblem(
                f"cannot set up the memory cgroup {self._memory}: {error.strerror}; "
                "run as root, or without a memory limit"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        for directory in self._directories:
            _remove(directory)

    def add(self, pid: int) -> None:
        """Move process `pid` in. Its later charges count here; earlier ones stay where they are."""
        for directory in self._directories:
            (directory / "cgroup.procs").write_text(str(pid))

    def read(self) -> MemoryReading:
        """The current counters."""
        return self._read_v1() if self.hierarchy.version == 1 else self._read_v2()

    def set_limit(self, limit_bytes: int | None) -> None:
        """Change the limit of a cgroup in use; None removes it. A limit below the usage makes the kernel reclaim before
        this returns. Raises OSError when the kernel refuses.
        """
        self.limit_bytes = limit_bytes
        name, unlimited = ("memory.limit_in_bytes", "-1") if self.hierarchy.version == 1 else ("memory.max", "max")
        _write(self._memory / name, unlimited if limit_bytes is None else str(limit_bytes))

    def _set_up(self) -> None:
        if self.hierarchy.version == 2 and "memory" not in _words(self.hierarchy.memory / "cgroup.subtree_control"):
            _write(self.hierarchy.memory / "cgroup.subtree_control", "+memory")
        self.set_limit(self.limit_bytes)
        # Swap would relax the limit.
        if self.hierarchy.version == 1:
            _write_if_there(self._memory / "memory.swappiness", "0")
        else:
            _write_if_there(self._memory / "memory.swap.max", "0")

    def _read_v1(self) -> MemoryReading:
        directory = self._memory
        return MemoryReading(
            usage_bytes=_read_int(directory / "memory.usage_in_bytes"),
            usage_bytes_max=_read_int(directory / "memory.max_usage_in_bytes"),
            limit_hits=_read_int(directory / "memory.failcnt"),
            oom_kills=_keyed(directory / "memory.oom_control").get("oom_kill", 0),
            kernel_bytes=_read_int(directory / "memory.kmem.usage_in_bytes"),
            statistics=_kept(_keyed(directory / "memory.stat")),
            pressure=self._pressures(),
        )

    def _read_v2(self) -> MemoryReading:
        directory = self._memory
        statistics = _keyed(directory / "memory.stat")
        events = _keyed(directory / "memory.events")
        return MemoryReading(
            usage_bytes=_read_int(directory / "memory.current"),
            usage_bytes_max=_read_int(directory / "memory.peak"),
            limit_hits=events.get("max", 0),
            oom_kills=events.get("oom_kill", 0),
            kernel_bytes=statistics.get("kernel", statistics.get("slab", 0)),
            statistics=_kept(statistics),
            pressure=self._pressures(),
        )

    def _pressures(self) -> dict[str, Pressure]:
        readings = {kind: read_pressure(self._pressure / f"{kind}.pressure") for kind in PRESSURES}
        return {kind: reading for kind, reading in readings.items() if reading is not None}


def _keyed(path: Path) -> dict[str, int]:
    try:
        return parse_flat_keyed(path.read_text())
    except OSError:
        return {}


def _kept(statistics: Mapping[str, int]) -> dict[str, int]:
    return {key: value for key, value in statistics.items() if key in KEPT_STATISTICS}


def _write(path: Path, text: str) -> None:
    """Write a control file, which must exist: `open` for creation would hide that it does not."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: Path, text: str) -> None:
    try:
        _write(path, text)
    except OSError:
        pass  # this kernel has no swap accounting, so there is nothing to limit


def _make(directory: Path) -> None:
    directory.mkdir()


def _remove(directory: Path) -> None:
    for _ in range(REMOVE_ATTEMPTS):
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(REMOVE_PAUSE_SECONDS)
    raise EnvironmentProblem(f"cannot remove the cgroup {directory}: still in use; remove it with rmdir")
