"""What `deferfs crash` does once its arguments are known."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from deferfs.cli.outcome import EXIT_INTERRUPTED
from deferfs.cli.output import counted, say, say_json, tell
from deferfs.crash.ace import WORKLOADS
from deferfs.crash.campaign import Summary, cluster, numbered, processes, run_campaign
from deferfs.crash.examination import CrashError
from deferfs.crash.exploration import RANDOM, Finding, Task, check_task
from deferfs.crash.other.filesystems import filesystem
from deferfs.crash.other.judge import explore_other
from deferfs.crash.reproducer import read_finding, replay, write_finding
from deferfs.crash.shrinking import shrink
from deferfs.errors import ImageError, UsageError
from deferfs.limits import BLOCK_SIZE_BYTES_MAX, BLOCK_SIZE_BYTES_MIN

_PROGRESS_SECONDS: Final = 2.0
"""Interval between two lines of progress."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to explore: `runs` tasks from `first` on, or for `seconds`, with `jobs` processes or a cluster."""

    first: Task
    seconds: float | None
    runs: int | None
    jobs: int
    scheduler: str | None
    output: str
    shrink_seconds: float


def run_explore(request: Request, *, quiet: bool, as_json: bool) -> int:
    """Explore, shrink and write what was found; the exit code."""
    first = request.first
    _check(request)
    count = request.runs
    if first.workload != RANDOM:
        left = WORKLOADS[first.workload].count - first.seed
        count = left if count is None else min(count, left)
    started = time.monotonic()
    deadline = None if request.seconds is None else started + request.seconds
    summary, interrupted = Summary(next_seed=first.seed), False
    try:
        with _progress(summary, started, quiet=quiet), _executor(request) as executor:
            run_campaign(
                numbered(first, count),
                executor=executor,
                jobs=request.jobs if request.scheduler is None else 2 * request.jobs,
                go_on=lambda: deadline is None or time.monotonic() < deadline,
                summary=summary,
            )
    except KeyboardInterrupt:
        interrupted = True
        tell(f"interrupted; the runs under way are not counted, --seed {summary.next_seed} continues with them")
    seconds = time.monotonic() - started
    program = None
    if summary.finding is not None:
        tell(f"failure: {summary.finding.reason}")
        program = _write(summary.finding, request)
    if as_json:
        say_json(_as_json(summary, seconds, program))
    else:
        _report(summary, seconds, first)
    if interrupted:
        return EXIT_INTERRUPTED
    return 0 if summary.finding is None else 1


def _check(request: Request) -> None:
    first = request.first
    check_task(first)
    if first.workload != RANDOM and first.seed >= WORKLOADS[first.workload].count:
        last = WORKLOADS[first.workload].count - 1
        raise UsageError(f"seed {first.seed}: the sequences of {first.workload} are numbered 0 to {last}")
    size = first.block_size
    if not BLOCK_SIZE_BYTES_MIN <= size <= BLOCK_SIZE_BYTES_MAX or size & (size - 1):
        raise UsageError(
            f"block size must be a power of two from {BLOCK_SIZE_BYTES_MIN} to {BLOCK_SIZE_BYTES_MAX}, not {size}"
        )
    if request.scheduler is not None and request.jobs != 1:
        raise UsageError("--jobs is about processes of this machine; with --scheduler the cluster has its own")
    output = Path(request.output)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: not a directory")


def _executor(request: Request) -> AbstractContextManager[Executor | None]:
    return processes(request.jobs) if request.scheduler is None else cluster(request.scheduler)


def _write(finding: Finding, request: Request) -> Path:
    deadline = time.monotonic() + request.shrink_seconds
    if request.shrink_seconds:
        tell(f"shrinking {len(finding.actions)} actions, for at most {request.shrink_seconds:g} seconds")
        finding = shrink(finding, lambda: time.monotonic() < deadline)
    try:
        program = write_finding(finding, Path(request.output))
    except OSError as error:
        raise ImageError(f"{request.output}: {error.strerror}") from error
    tell(f"{len(finding.actions)} actions are left; run `deferfs crash replay {program}`")
    return program


class _Ticker:
    """Whether it is time for another line of progress."""

    def __init__(self, started: float) -> None:
        self._next = started + _PROGRESS_SECONDS

    def due(self) -> bool:
        """Whether progress is to be shown: once every _PROGRESS_SECONDS."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _PROGRESS_SECONDS
        return True


@contextmanager
def _progress(summary: Summary, started: float, *, quiet: bool) -> Iterator[None]:
    """A line from time to time, also while one run takes long: what was done, and how fast."""
    over = threading.Event()

    def tell_again() -> None:
        while not over.wait(_PROGRESS_SECONDS):
            tally, seconds = summary.tally, time.monotonic() - started
            tell(
                f"{seconds:.0f} s: {counted(summary.tasks, 'run', form=',')}, "
                f"{counted(tally.states, 'distinct state', form=',')}, {tally.states / seconds:,.0f}/s, "
                f"{counted(len(tally.coverage), 'journal state')}; now at seed {summary.next_seed}"
            )

    thread = threading.Thread(target=tell_again, daemon=True)
    if not quiet:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if not quiet:
            thread.join()


def _report(summary: Summary, seconds: float, first: Task) -> None:
    tally = summary.tally
    seeds = f", seeds {first.seed} to {summary.next_seed - 1}" if summary.tasks else ""
    say(f"runs      {summary.tasks:,} of workload {first.workload}{seeds}")
    say(f"states    {tally.states:,} distinct ({tally.within:,} inside recoveries), {tally.repeats:,} met again")
    say(f"rate      {tally.states / seconds:,.0f} distinct states a second, {seconds:.1f} s")
    say(
        f"work      {counted(tally.recoveries, 'recovery', 'recoveries', form=',')}, "
        f"{counted(tally.examined, 'examination', form=',')}, "
        f"{counted(tally.sampled, 'state', form=',')} judged twice, "
        f"{counted(tally.emptied, 'filesystem', form=',')} emptied"
    )
    say(f"coverage  {counted(len(tally.coverage), 'journal state')}: in flight, log; recovered to")
    for what, count in sorted(tally.coverage.items(), key=lambda item: (-item[1], item[0])):
        say(f"{count:>12,}  {what}")


def _as_json(summary: Summary, seconds: float, program: Path | None) -> dict[str, object]:
    return {
        **asdict(summary.tally),
        "runs": summary.tasks,
        "next_seed": summary.next_seed,
        "seconds": seconds,
        "failure": None if summary.finding is None else summary.finding.reason,
        "program": None if program is None else str(program),
    }


def run_replay(name: str, *, as_json: bool) -> int:
    """Repeat a failure; the exit code."""
    path = Path(name)
    finding = read_finding(path)
    reason, notes = replay(finding, path.with_suffix(".img"))
    if as_json:
        say_json({"fails": reason is not None, "reason": reason, "notes": notes})
    else:
        say(f"still fails: {reason}" if reason else "does not fail any more")
        for note in notes:
            say(note)
    return 1 if reason else 0


def run_other(name: str, *, states: int, steps: int, seed: int, quiet: bool) -> int:
    """Explore another filesystem in a temporary directory; the exit code."""
    kind = filesystem(name)
    started = time.monotonic()
    ticker = _Ticker(started)

    def progress(done: int) -> None:
        if not quiet and ticker.due():
            tell(f"{time.monotonic() - started:.0f} s: {done} of {states} states of {name}")

    with tempfile.TemporaryDirectory(prefix="deferfs-crash-") as directory:
        try:
            done = explore_other(kind, Path(directory), steps=steps, states=states, seed=seed, progress=progress)
        except CrashError as error:
            tell(f"failure: {name}: {error}")
            return 1
    say(f"{name}: {done} crash states mounted and checked, all as promised, in {time.monotonic() - started:.1f} s")
    return 0
