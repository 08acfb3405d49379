"""The costs of many files: in one directory, in memory, and as orphans at the next mount."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from deferfs.errors import UsageError
from deferfs.measure.mounts.daemon import daemon_of, statistics_of
from deferfs.measure.mounts.orphan_mount import Orphans, measure_orphans
from deferfs.measure.mounts.rivals import Deferfs, mounted
from deferfs.measure.report.wording import latency, size, spread, times
from deferfs.measure.scenario import Pass, Side, Surroundings
from deferfs.measure.simple import SimpleScenario, value_pass
from deferfs.measure.work.directory_growth import BATCH, STEPS, Growth, measure_growth
from deferfs.measure.work.walk_memory import Walk, measure_walk

IMAGE_BYTES: Final = 8 << 30
BYTES_PER_ENTRY: Final = 2048
"""Space for an inode of 512 bytes and its entry, with a large reserve."""
PARTS: Final = ("directory", "walk", "orphans")


class Parameters(msgspec.Struct, frozen=True):
    """`entries` of the directory, `orphans` of the image, `mounts` of each of the two images; `options` of the mount;
    `only`: run just these parts."""

    entries: int = 1_000_000
    orphans: int = 100_000
    mounts: int = 3
    options: str = "memory=64M"
    only: tuple[str, ...] = ()


def measure_directory(parameters: Parameters, surroundings: Surroundings, *, walks: bool) -> tuple[Growth, list[Walk]]:
    """Grow a directory, then walk it on a new mount for each walk."""
    filesystem = Deferfs(parameters.options, max(IMAGE_BYTES, parameters.entries * BYTES_PER_ENTRY))
    home, found = surroundings.scratch, []
    (home / "mnt").mkdir(parents=True)
    filesystem.make(home)
    with mounted(filesystem, home, home / "mnt") as root:
        daemon_of(root, surroundings)
        growth = measure_growth(root, parameters.entries, surroundings.tell)
    for limited in (True, False) if surroundings.hierarchy else (False,):
        if not walks:
            break
        surroundings.tell(f"walking, {'in a memory cgroup' if limited else 'without a memory limit'}")
        with mounted(filesystem, home, home / "mnt") as root:
            budget = statistics_of(root, surroundings.ask).memory.budget_bytes
            found.append(measure_walk(root, daemon_of(root, surroundings), budget, limited=limited))
    shutil.rmtree(home)
    return growth, found


def growth_words(growth: Growth) -> str:
    """One line."""
    small = sum(growth.small) / len(growth.small)
    return (
        f"create: {latency(small * 1e9)} an entry in a directory of {BATCH:,};"
        f" in one of up to {growth.entries:,}: {spread(growth.ratio)} as long,"
        f" in its second half {spread(growth.late)}, overall {times(growth.overall)}"
    )


def walk_words(walk: Walk) -> str:
    """One line."""
    return (
        f"walk: {walk.files:,} files {'in' if walk.limited else 'without'} a memory cgroup:"
        f" daemon {size(walk.start)} at the start, {size(walk.peak)} at most, {size(walk.end)} after;"
        f" budget {size(walk.budget)}, {size(abs(walk.beyond))} {'beyond' if walk.beyond > 0 else 'less than'} both"
    )


def orphan_words(orphans: Orphans) -> str:
    """One line."""
    mean = sum(orphans.clean) / len(orphans.clean)
    return (
        f"mount: clean {latency(mean * 1e9)}; with {orphans.orphans:,} orphans"
        f" left by {'a crash, and its log' if orphans.left_by == 'crash' else 'an unmount'}:"
        f" {spread(orphans.ratio)} as long; orphans gone {latency(max(orphans.drain) * 1e9)} later"
    )


def measure(side: Side, parameters: Parameters, surroundings: Surroundings, number: int) -> Pass:
    """All selected parts, one after the other."""
    parts, entries = parameters.only or PARTS, parameters.entries
    if not set(parts) <= set(PARTS):
        raise UsageError(f"only={','.join(parts)}: the parts are {', '.join(PARTS)}")
    if entries < STEPS * BATCH * 2 or entries % STEPS:
        raise UsageError(f"entries={entries}: must be a multiple of {STEPS} from {STEPS * BATCH * 2} up")
    start = time.monotonic()
    counters: dict[str, float] = {}
    lines = []
    if "directory" in parts or "walk" in parts:
        growth, walks = measure_directory(parameters, surroundings, walks="walk" in parts)
        lines = [growth_words(growth), *map(walk_words, walks)]
        counters["entry_in_small_directory_seconds"] = sum(growth.small) / len(growth.small)
        counters["entry_in_large_directory_seconds"] = sum(growth.large) / len(growth.large)
        for walk in walks:
            counters[f"daemon_at_most_{'limited' if walk.limited else 'unlimited'}_walk_bytes"] = walk.peak
    for crash in (False, True) if "orphans" in parts else ():
        home = surroundings.scratch
        home.mkdir()
        found = measure_orphans(
            home, parameters.orphans, parameters.mounts, crash=crash, ask=surroundings.ask, tell=surroundings.tell
        )
        shutil.rmtree(home)
        lines.append(orphan_words(found))
        counters[f"mount_after_{found.left_by}_seconds"] = sum(found.with_orphans) / len(found.with_orphans)
        counters["mount_clean_seconds"] = sum(found.clean) / len(found.clean)
    return value_pass(side, time.monotonic() - start, counters, notes=lines)


def tell(passes: Sequence[Pass], parameters: Parameters) -> list[str]:
    """The lines of the parts."""
    return [line for one in passes for line in one.notes]


SCENARIO = SimpleScenario(
    name="scaling",
    mechanism=(
        "Very many files: what an entry costs in a large directory, what a walk costs in memory, and whether a mount "
        "with orphans is usable as soon as a clean one."
    ),
    parameters=Parameters,
    work=measure,
    tell=tell,
)
