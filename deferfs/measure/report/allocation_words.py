"""The results of the scenario `allocation`, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from deferfs.measure.report.wording import latency
from deferfs.measure.scenario import Pass, Side, Stall

FRAMES_NAMED: Final = 3
_OF_FILESYSTEMS: Final = ("ext4_", "jbd2_", "xfs_", "btrfs_", "fuse_", "shmem_")
MIB: Final = 1 << 20


def sentences(passes: Sequence[Pass], sides: Sequence[Side], series: str) -> list[str]:
    """The longest wait of each side, with the number of passes that were OOM-killed; where the longest wait of all was;
    how much kernel memory the killed ones still had.
    """
    by_side = {side: [one for one in passes if one.side == side.name] for side in sides}
    named = [(side, found) for side, found in by_side.items() if found]
    if not named:
        return []
    told = [
        "One allocation in a memory cgroup waited up to "
        + ", ".join(f"{latency(_longest(found, series))} on {side.words}{_ends(found)}" for side, found in named)
        + "."
    ]
    stalls = [(stall, side) for side, found in named for one in found for stall in one.stalls if stall.stack]
    if stalls:
        stall, side = max(stalls, key=lambda item: item[0].duration_ns)
        told.append(
            f"The longest wait, {latency(stall.duration_ns)} on {side.words}, was seen most often in {place(stall)}."
        )
    told += [text for side, found in named if (text := _killed(side, found))]
    return told


def place(stall: Stall) -> str:
    """Where a stall was: the innermost functions of the filesystem in its stack, or else the innermost of all."""
    own = [name for name in stall.stack if name.startswith(_OF_FILESYSTEMS)]
    return " < ".join((own or stall.stack)[:FRAMES_NAMED])


def _longest(found: Sequence[Pass], series: str) -> int:
    return max(one.series[series].latency.max_ns for one in found)


def _ends(found: Sequence[Pass]) -> str:
    said = []
    for outcome, words in (("oom-killed", "OOM-killed"), ("unfinished", "unfinished")):
        if count := sum(one.outcome == outcome for one in found):
            said.append(f"{words} {count} of {len(found)}")
    return f" ({', '.join(said)})" if said else ""


def _killed(side: Side, found: Sequence[Pass]) -> str:
    """Kernel memory charged at the kill and a moment later; the difference was already released, but not yet freed."""
    told = [one.counters for one in found if one.counters.get("kernel_when_killed_bytes")]
    if not told:
        return ""
    most = max(told, key=lambda counters: counters["kernel_when_killed_bytes"])
    then, later = (most[name] / MIB for name in ("kernel_when_killed_bytes", "kernel_settled_bytes"))
    return (
        f"When the process was OOM-killed on {side.words}, its cgroup was charged {then:.1f} MiB for the kernel's "
        f"objects; a moment later, {later:.1f} MiB."
    )
