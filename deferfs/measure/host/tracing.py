"""Trace events of the kernel: direct reclaim by process, and cleanup by filesystems.

When a charge to a memory cgroup hits the limit, the task that made it reclaims at once, between the events
`vmscan:mm_vmscan_memcg_reclaim_begin` and `..._end`. Events are recorded in a trace instance of our own, which disturbs
no other tracing, with the clock of `CLOCK_MONOTONIC`.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Self

import msgspec

TRACEFS_PLACES: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
EVENTS: Final = ("mm_vmscan_memcg_reclaim_begin", "mm_vmscan_memcg_reclaim_end")
RECLAIM: Final = tuple(f"vmscan:{event}" for event in EVENTS)
CLEANUP: Final = (
    "jbd2:jbd2_checkpoint",
    "jbd2:jbd2_end_commit",
    "jbd2:jbd2_handle_start",
    "xfs:xfs_inodegc_push",
    "xfs:xfs_inodegc_queue",
    "xfs:xfs_inodegc_shrinker_scan",
    "xfs:xfs_inodegc_throttle",
    "xfs:xfs_inodegc_worker",
    "xfs:xfs_inode_inactivating",
    "xfs:xfs_inode_set_reclaimable",
    "xfs:xfs_inode_reclaiming",
    "btrfs:btrfs_inode_evict",
    "btrfs:btrfs_transaction_commit",
    "oom:mark_victim",
)
"""Events of ext4, XFS and btrfs for evict and the work that follows. Those that a kernel lacks are skipped."""
BUFFER_KIB: Final = 4096
"""Per CPU; an event takes about 40 bytes, so this holds about 100,000."""
_LINE: Final = re.compile(
    r"^\s*(?P<task>.+)-(?P<pid>\d+)\s+(?:\(\s*[-\d]+\)\s+)?\[\d+\]\s+(?:\S+\s+)?(?P<seconds>\d+)\.(?P<fraction>\d+):"
    r"\s+(?P<event>\w+):"
)


class ReclaimSpan(msgspec.Struct, frozen=True):
    """One direct reclaim by task `pid`, on the monotonic clock."""

    pid: int
    begin_ns: int
    end_ns: int


class ReclaimTotals(msgspec.Struct, frozen=True):
    """Direct reclaims of one process: number, and time in ns."""

    count: int
    total_ns: int
    max_ns: int


def parse_reclaims(lines: Iterable[str]) -> Iterator[ReclaimSpan]:
    """Spans from the text of a trace file. An end whose begin was overwritten is dropped."""
    open_since: dict[int, int] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        pid = int(match["pid"])
        now = int(match["seconds"]) * 1_000_000_000 + int(match["fraction"].ljust(9, "0")[:9])
        if match["event"] == EVENTS[0]:
            open_since[pid] = now
        elif match["event"] == EVENTS[1] and pid in open_since:
            yield ReclaimSpan(pid, open_since.pop(pid), now)


def totals_by_name(spans: Iterable[ReclaimSpan], names: Mapping[int, str]) -> dict[str, ReclaimTotals]:
    """Totals of the processes in `names` (pid -> name), including those without any."""
    durations: dict[str, list[int]] = {name: [] for name in names.values()}
    for span in spans:
        if span.pid in names:
            durations[names[span.pid]].append(span.end_ns - span.begin_ns)
    return {name: ReclaimTotals(len(taken), sum(taken), max(taken, default=0)) for name, taken in durations.items()}


def count_events(lines: Iterable[str]) -> dict[str, int]:
    """Occurrences of each event in the text of a trace file."""
    return dict(Counter(match["event"] for line in lines if (match := _LINE.match(line))))


class EventTrace:
    """Records trace events (`system:event`) for the length of a `with` block.

    `problem` says in one line why nothing is recorded, or is empty. Tracing is optional: it never stops a run.
    """

    def __init__(self, name: str, events: Iterable[str], places: Iterable[Path] = TRACEFS_PLACES) -> None:
        self.problem = ""
        self._name = name
        self._events = tuple(events)
        self._places = tuple(places)
        self._mounted: Path | None = None
        self._instance: Path | None = None

    def __enter__(self) -> Self:
        try:
            tracefs = self._find_tracefs()
            instance = tracefs / "instances" / self._name
            instance.mkdir()
            self._instance = instance
            self._write("buffer_size_kb", str(BUFFER_KIB))
            self._write("trace_clock", "mono")
            for event in self._events:
                enable = f"events/{event.replace(':', '/')}/enable"
                if (instance / enable).exists():  # missing in another kernel, or when a module is not loaded
                    self._write(enable, "1")
        except (OSError, subprocess.SubprocessError) as error:
            self.problem = f"no trace of the kernel's direct reclaim: {error}"
            self._clean_up()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clean_up()

    def clear(self) -> None:
        """Drop what was recorded so far."""
        if self._instance is not None:
            self._write("trace", "")

    def lines(self) -> list[str]:
        """What was recorded since the start or the last `clear`, as text."""
        if self._instance is None:
            return []
        with (self._instance / "trace").open(errors="replace") as lines:
            return list(lines)

    def _find_tracefs(self) -> Path:
        for place in self._places:
            if (place / "instances").is_dir():
                return place
        self._mounted = Path(tempfile.mkdtemp(prefix="deferfs-tracefs-"))
        subprocess.run(
            ["mount", "-t", "tracefs", "tracefs", str(self._mounted)],
            check=True,
            capture_output=True,
        )
        return self._mounted

    def _write(self, file: str, text: str) -> None:
        assert self._instance is not None
        (self._instance / file).write_text(text)

    def _clean_up(self) -> None:
        instance, self._instance = self._instance, None
        mounted, self._mounted = self._mounted, None
        if instance is not None:
            instance.rmdir()  # this disables its events
        if mounted is not None:
            subprocess.run(["umount", str(mounted)], check=False, capture_output=True)
            mounted.rmdir()


class ReclaimTrace(EventTrace):
    """Records direct reclaims."""

    def __init__(self, name: str, places: Iterable[Path] = TRACEFS_PLACES) -> None:
        super().__init__(name, RECLAIM, places)

    def read(self) -> list[ReclaimSpan]:
        """What was recorded since the start or the last `clear`."""
        return list(parse_reclaims(self.lines()))
