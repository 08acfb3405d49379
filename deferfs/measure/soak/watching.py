"""A soak: everything at once, for any length of time. Memory stays flat, the backlog bounded, statfs exact at the end.

Processes run `soak.work` with a memory budget and a log that are too small for it, disturbed by `soak.disturbances`.
The daemon is sampled every second. In the end everything is deleted, and the filesystem must be as before.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from deferfs.contract.statistics import Statistics, Throttle
from deferfs.errors import DeferfsError
from deferfs.measure.host.commands import deferfs_command
from deferfs.measure.mounts.syncing import sync_filesystem
from deferfs.measure.soak.disturbances import Mount, calm, disturb
from deferfs.measure.soak.work import work_until
from deferfs.measure.work.small_files import DROP_ALL
from deferfs.reclaim.lockdep import CYCLE_TITLE, FS_RECLAIM
from deferfs.units import format_size

STANDING_FILES: Final = 24_000
"""Permanent files of all processes together: about 20 MiB of inodes and blocks."""
STANDING_A_SECOND: Final = 100
"""Permanent files per second of a short soak, which has time to make only so many."""
SHORT: Final = 0.85
"""Memory counts as short above this fraction of the budget: at 0.9 reclaim begins."""
SAMPLE_SECONDS: Final = 1.0
END_SECONDS_MAX: Final = 300.0
GROWTH_MAX: Final = 1.05
"""RSS of the last third divided by that of the second: at most this is flat, as it includes noise."""
GROWTH_MINUTES_MIN: Final = 3.0
"""In a shorter soak caches are still being filled, and the ratio is meaningless."""


class Sample(msgspec.Struct, frozen=True):
    """The daemon at one moment: bytes of memory, fraction of the budget in use, descriptors, in-core inodes, and the
    backlog (`oldest`: seconds)."""

    at: float
    rss: int
    pss: int
    used: float
    descriptors: int
    inodes: int
    queued: int
    pending_bytes: int
    oldest: float


class Verdict(msgspec.Struct, frozen=True):
    """One promise: its figures, and whether it was kept (None: too short to judge)."""

    promise: str
    figures: str
    kept: bool | None


class Soak(msgspec.Struct, frozen=True):
    """All of a soak."""

    seconds: float
    processes: int
    rounds: int
    verdicts: list[Verdict]
    samples: list[Sample]


def find_cycles(mount: Mount) -> list[str]:
    """Possible cycles of waits. Cycles through reclaim are inherent in inline mode and ignored; deferred, nothing waits
    in reclaim."""
    report = mount.set("lockdep", "report")
    found = [line for line in report.splitlines() if line.startswith(CYCLE_TITLE)]
    return [line for line in found if FS_RECLAIM not in line]


def take_sample(mount: Mount, at: float) -> Sample:
    """Sample the daemon."""
    statistics = mount.statistics()
    process = Path("/proc") / str(statistics.pid)
    kilobytes = {
        fields[0]: int(fields[1])
        for line in (process / "smaps_rollup").read_text().splitlines()[1:]
        if (fields := line.split())
    }
    gc, memory = statistics.gc, statistics.memory
    return Sample(
        at,
        kilobytes["Rss:"] << 10,
        kilobytes["Pss:"] << 10,
        memory.used_bytes / (memory.budget_bytes - memory.reserve_bytes),
        len(os.listdir(process / "fd")),
        statistics.inodes.cached,
        gc.queued,
        gc.pending_bytes,
        gc.oldest_seconds,
    )


def watch(mount: Mount, seconds: float, workers: Sequence[BaseProcess]) -> list[Sample]:
    """Sample and disturb until the time is over. DeferfsError when a worker ends early."""
    samples: list[Sample] = []
    scale = max(1, round(180 / seconds))
    start = time.monotonic()
    while (at := time.monotonic() - start) < seconds:
        if any(not worker.is_alive() for worker in workers):
            raise DeferfsError("a process of the soak has ended early; its message is above, the daemon's in its log")
        samples.append(take_sample(mount, at))
        disturb(mount, len(samples), scale)
        time.sleep(SAMPLE_SECONDS)
    return samples


def drain(mount: Mount) -> None:
    """Wait until the kernel has forgotten everything and inodegc has cleaned it up."""
    deadline = time.monotonic() + END_SECONDS_MAX
    calm(mount)
    root = mount.root
    while True:
        sync_filesystem(root)
        Path("/proc/sys/vm/drop_caches").write_text(DROP_ALL)
        mount.set("gc", "flush")
        sync_filesystem(root)
        statistics = mount.statistics()
        if not (statistics.space.orphans + statistics.gc.queued + statistics.inodes.forgets_waiting):
            return
        if time.monotonic() > deadline:
            raise DeferfsError(f"{root}: orphans are left after {END_SECONDS_MAX:.0f} s")
        time.sleep(0.05)


def free_counts(root: Path) -> tuple[int, int, int]:
    """Blocks, free blocks and available blocks, from statfs(2)."""
    found = os.statvfs(root)
    return found.f_blocks, found.f_bfree, found.f_bavail


def _is_long(seconds: float) -> bool:
    """Whether a soak of this length shows what takes a while."""
    return seconds >= 60 * GROWTH_MINUTES_MIN


def judge_growth(samples: Sequence[Sample], seconds: float) -> list[Verdict]:
    """Memory and descriptors: the last third compared with the second."""
    third = max(len(samples) // 3, 1)
    second, last = samples[third : 2 * third] or samples, samples[2 * third :] or samples
    verdicts = []
    for name in ("rss", "pss"):
        before, after = (median(getattr(sample, name) for sample in part) for part in (second, last))
        kept = after <= GROWTH_MAX * before if _is_long(seconds) else None
        figures = f"{format_size(before)}, then {format_size(after)}: {after / before:.3f} (at most {GROWTH_MAX})"
        verdicts.append(Verdict(f"{name.upper()} is flat", figures, kept))
    most = (max(sample.descriptors for sample in second), max(sample.descriptors for sample in last))
    verdicts.append(Verdict("descriptors are bounded", f"at most {most[0]}, then {most[1]}", most[1] <= most[0] + 8))
    return verdicts


def judge_backlog(samples: Sequence[Sample], limits: Throttle) -> Verdict:
    """The backlog must stay within the limits of the throttle, in age, too."""
    queued, size, oldest = (max(getattr(s, name) for s in samples) for name in ("queued", "pending_bytes", "oldest"))
    slack = limits.age_seconds + limits.deadline_seconds + SAMPLE_SECONDS
    return Verdict(
        "the backlog is bounded",
        f"{queued} inodes (limit {limits.inodes}), {format_size(size)}, oldest {oldest:.2f} s"
        f" (limit {limits.age_seconds:g} s)",
        queued <= limits.inodes and size <= limits.bytes and oldest <= slack,
    )


def judge_shortage(samples: Sequence[Sample], seconds: float, end: Statistics) -> Verdict:
    """Memory must have been short: otherwise a soak shows little."""
    short = sum(sample.used >= SHORT for sample in samples) / len(samples)
    waits = ", ".join(f"{end.waits[name].count} for {name}" for name in ("memory", "log", "thaw", "throttle"))
    return Verdict(
        "memory is short",
        f"in {100 * short:.0f} % of the time; {end.memory.direct_reclaims_total} direct reclaims; waits: {waits}",
        short > 0.1 if _is_long(seconds) else None,
    )


def judge_throttle(seconds: float, end: Statistics) -> Verdict:
    """Deletes must have been throttled, and none may wait any more."""
    waits, throttle = end.waits["throttle"], end.throttle
    judged = waits.count or throttle.waiting or _is_long(seconds)
    return Verdict(
        "deletes are throttled",
        f"{waits.count} times, {waits.max_ns / 1e9:.2f} s at most (deadline {throttle.deadline_seconds:g} s,"
        f" reached {throttle.expired_total} times)",
        waits.count > 0 and not throttle.waiting if judged else None,
    )


def judge_end(
    before: tuple[int, int, int], after: tuple[int, int, int], end: Statistics, cycles: Sequence[str]
) -> list[Verdict]:
    """Everything must be as before the soak."""
    verdicts = [Verdict("statfs is exact", f"{before[1] - after[1]} blocks differ", before == after)]
    counts: dict[str, int | dict[str, int]] = {
        "orphans": end.space.orphans,
        "quarantined inodes": end.inodes.quarantined,
        "anomalies": end.inodes.anomalies,
        "errors": end.gc.errors_total,
        "corruptions": end.corruptions_total,
        "lock-order cycles but through inline reclaim": len(cycles),
    }
    for name, count in counts.items():
        total = sum(count.values()) if isinstance(count, dict) else count
        verdicts.append(Verdict(f"no {name}", str(count), not total))
    return verdicts


def _process(root: str, number: int, seed: int, standing: int, stop: Any, rounds: Any) -> None:
    done = work_until(stop.is_set, Path(root) / f"process{number}", seed, standing)
    with rounds.get_lock():
        rounds.value += done


def soak(mount: Mount, seconds: float, processes: int, seed: int) -> Soak:
    """The soak on a fresh filesystem."""
    root = mount.root
    drain(mount)
    before = free_counts(root)
    context = multiprocessing.get_context("spawn")
    stop, rounds = context.Event(), context.Value("l", 0)
    standing = min(STANDING_FILES, int(seconds * STANDING_A_SECOND)) // processes
    workers = [
        context.Process(target=_process, args=(str(root), number, seed + number, standing, stop, rounds))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        samples = watch(mount, seconds, workers)
    finally:
        stop.set()
        for worker in workers:
            worker.join(END_SECONDS_MAX)
            if worker.is_alive():
                worker.kill()
                worker.join()
    ended = [worker.exitcode for worker in workers]
    verdicts = [Verdict("all processes ended well", f"exit codes {ended}", not any(ended))]
    drain(mount)
    end = mount.statistics()
    verdicts += judge_growth(samples, seconds)
    verdicts += [judge_shortage(samples, seconds, end), judge_backlog(samples, end.throttle)]
    verdicts.append(judge_throttle(seconds, end))
    verdicts += judge_end(before, free_counts(root), end, find_cycles(mount))
    return Soak(seconds, processes, rounds.value, verdicts, samples)


def check_image(image: Path) -> Verdict:
    """fsck on the unmounted image."""
    done = subprocess.run([*deferfs_command(), "fsck", "-n", str(image)], check=False, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return Verdict("fsck finds nothing", lines[-1] if lines else f"exit code {done.returncode}", not done.returncode)
