"""The churn scenario from the command line: checks first, then the runs, then the report."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from deferfs.cli.output import tell
from deferfs.cli.scratch import keep_mounts_private
from deferfs.measure.churn import ROUNDS_MAX, SEED, run_churn
from deferfs.measure.environment import check_fuse, usable_hierarchy
from deferfs.measure.page import check_renderer, render_page
from deferfs.measure.results import Report
from deferfs.measure.run import Conditions
from deferfs.measure.table import print_report
from deferfs.measure.targets import DeferfsTarget, DirectoryTarget, Target
from deferfs.measure.tracing import ReclaimTrace
from deferfs.measure.workload import VICTIMS_PER_ROUND, Work
from deferfs.mount import control_client, mountinfo
from deferfs.mount.options import parse_options
from deferfs.mount.output_file import check_replaceable, write_results
from deferfs.mount.units import parse_size

UNLIMITED: Final = "none"


@dataclass(frozen=True, slots=True)
class Request:
    """What `deferfs bench churn` was asked for."""

    target: Path | None
    pairs: int
    seconds: float
    rounds: int
    memory_limit: str
    daemon_inside: bool
    tree_files: int
    options: tuple[str, ...]
    scratch: Path | None
    json_file: Path | None
    html_file: Path | None


def run_benchmark(request: Request) -> None:
    """Measure and report. Everything that is missing is said before anything starts."""
    _check(request)
    conditions, notes = _conditions(request)
    with _terminated_as_interrupted():
        target = _make_target(request)
        try:
            report = _measure(target, conditions, request.pairs, notes)
        finally:
            target.close()
    _publish(report, request)


def _check(request: Request) -> None:
    for output in (request.json_file, request.html_file):
        if output is not None:
            check_replaceable(str(output))
    if request.html_file is not None:
        check_renderer()
    if request.target is None:
        check_fuse()
    parse_options(request.options)


def _conditions(request: Request) -> tuple[Conditions, list[str]]:
    """What every run has in common, and what the reader of the report must know about it."""
    notes = []
    hierarchy, limit_bytes = None, 0
    if request.memory_limit != UNLIMITED:
        limit_bytes = parse_size(request.memory_limit)
        hierarchy, problem = usable_hierarchy(limit_bytes)
        if problem:
            tell(problem)
            notes.append(problem)
    work = Work(
        rounds=request.rounds,
        seconds=request.seconds,
        tree_files=request.tree_files,
        victims=VICTIMS_PER_ROUND * (request.rounds or ROUNDS_MAX),
        seed=SEED,
        keep_links=False,
    )
    return Conditions(work, hierarchy, limit_bytes, request.daemon_inside), notes


def _measure(target: Target, conditions: Conditions, pairs: int, notes: list[str]) -> Report:
    with ReclaimTrace(target.scratch.name) as trace:
        if trace.problem:
            tell(trace.problem)
            notes = [*notes, trace.problem]
        return run_churn(target, conditions, pairs, trace, notes, tell)


def _make_target(request: Request) -> Target:
    directory = request.target
    if directory is None:
        keep_mounts_private()
        return DeferfsTarget(read_statistics, ",".join(request.options), request.scratch)
    if directory.is_dir() and mountinfo.find_deferfs(str(directory)) is not None:
        return DirectoryTarget(directory, read_statistics, switch_policy)
    return DirectoryTarget(directory)


def _publish(report: Report, request: Request) -> None:
    """The report first: should a file be refused by now, the numbers are not lost."""
    print_report(report, sys.stdout)
    sys.stdout.flush()
    if request.json_file is not None:
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
        write_results(str(request.json_file), encoded + b"\n")
        tell(f"wrote {request.json_file}")
    if request.html_file is not None:
        write_results(str(request.html_file), render_page(report).encode())
        tell(f"wrote {request.html_file}")


def read_statistics(path: Path) -> dict[str, Any]:
    """The statistics object of the daemon behind `path`."""
    answer = control_client.ask(control_client.find_mount(str(path)), "stat")
    assert isinstance(answer, dict)
    return answer


def switch_policy(path: Path, policy: str) -> None:
    """Set the evict policy of the mount that `path` is in."""
    mount = control_client.find_mount(str(path))
    control_client.ask(mount, "set", key="evict", value=policy)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP clean up as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
