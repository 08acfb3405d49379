"""`deferfs bench SCENARIO...`: checks first, then the run, then the report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from deferfs.cli.output import report as report_line
from deferfs.cli.output import tell
from deferfs.cli.scratch import keep_mounts_private
from deferfs.contract.requests import Answer, Query
from deferfs.errors import EnvironmentProblem, UsageError
from deferfs.measure import catalogue
from deferfs.measure.environment import usable_hierarchy
from deferfs.measure.harness import Conditions, Plan, run
from deferfs.measure.host.cgroup import Hierarchy
from deferfs.measure.host.interrupts import Interrupts
from deferfs.measure.parameters import has_parameter, make_parameters
from deferfs.measure.report.page import check_renderer, render_page
from deferfs.measure.report.table import print_report
from deferfs.measure.results import Report, encode_report
from deferfs.measure.scenario import Loop, Scenario
from deferfs.measure.slow_disk import preset_of
from deferfs.mount.control import client
from deferfs.mount.host.output_file import check_replaceable, write_results


class Part(NamedTuple):
    """What a run without arguments takes of a scenario. `pairs` None: as many as the scenario itself; `seconds`: as in
    `Plan`; `settings`: PARAMETER=VALUE, as of --set."""

    loops: tuple[Loop, ...] | None
    pairs: int | None = None
    seconds: float | None = None
    settings: tuple[str, ...] = ()


WHOLE: Final = Part(None)
SECONDS: Final = 117.0
"""What a run without arguments may take, of the two minutes that are promised: the rest is the report's."""
DEFAULT: Final = {
    "allocation": Part(("closed",), pairs=1),
    "direct-reclaim": Part(
        ("open",),
        seconds=SECONDS,
        settings=("memory_mib=2", "owing=4250", "others=1000", "owing_links=true", "orphans=12"),
    ),
}
"""What fits into two minutes. `allocation` differs by factors of ten from one filesystem to the next, and one pass of
each shows that. The closed loop of direct-reclaim takes as long as all of this, and is left to a run that names the
scenario; of the open one as many of ten pairs are run as fit, and no fewer than a verdict needs. It has the smallest
budget that can be set, because making so many files owe that memory is short takes as long as what is measured; they
are links, which are read in half as many requests. Beside its files it has a process that exits, as in the case of
`allocation`: access times alone are paid so cheaply that inline seldom waits.
"""
PACKAGES: Final = (catalogue.PACKAGE, "deferfs.cli.scenarios")
"""Scenarios that drive a filesystem through its mount, and those that need the inside of the daemon."""
TRIAL_BYTES: Final = 64 << 20
"""Limit of the cgroup that is made to see whether one can be made."""
DISK: Final = "network"
"""The slow disk of a scenario that asks for no other."""
TARGET: Final = "target"


@dataclass(frozen=True, slots=True)
class Request:
    """What `deferfs bench` was asked for."""

    scenarios: tuple[str, ...]
    full: bool
    pairs: int | None
    disk: str | None
    loop: Loop | None
    sides: tuple[str, ...]
    settings: tuple[str, ...]
    target: Path | None
    aa: bool
    seed: int
    scratch: Path | None
    json_file: Path | None
    html_file: Path | None


def run_benchmark(request: Request) -> int:
    """Measure and report. Faults of the request, and missing requirements, are reported before anything starts."""
    plans = make_plans(request)
    _check_files(request)
    hierarchy, notes = _cgroups()
    interrupts = Interrupts(tell)
    with interrupts.installed():
        keep_mounts_private()
        report = run(
            plans,
            Conditions(
                scratch=request.scratch or Path(tempfile.gettempdir()),
                seed=request.seed,
                hierarchy=hierarchy,
                ask=ask,
                tell=tell,
                aa=request.aa,
                notes=notes,
            ),
        )
        _publish(report, request)
    if interrupts.number:
        return 128 + interrupts.number
    return _exit_code(report)


def make_plans(request: Request) -> list[Plan]:
    """What to run. UsageError when the words do not fit together."""
    scenarios = catalogue.find_scenarios(PACKAGES)
    names = request.scenarios or tuple(name for name in DEFAULT if name in scenarios)
    parts = {} if request.scenarios or request.full else DEFAULT
    if len(set(names)) < len(names):
        raise UsageError("a scenario is named twice")
    if request.settings and len(names) > 1:
        raise UsageError("--set belongs to one scenario; name that one")
    plans = []
    for name in names:
        scenario = catalogue.find(name, scenarios)
        part = parts.get(name, WHOLE)
        settings = [*part.settings, *request.settings, *_target_setting(request.target, scenario)]
        parameters = make_parameters(scenario, settings)
        points = scenario.sweep(parameters) if request.full else [parameters]
        disk = _disk_of(scenario, request)
        measured = [(point, disk) for point in points]
        if request.full and request.disk is None:
            measured += [(parameters, preset_of(swept).name) for swept in getattr(scenario, "swept_disks", ())]
        plans += [
            Plan(
                scenario,
                point,
                request.pairs or part.pairs,
                below,
                _loops_of(scenario, request, part.loops),
                _sides_of(scenario, point, request),
                None if request.pairs else part.seconds,
            )
            for point, below in measured
        ]
    if not plans:
        raise EnvironmentProblem("no scenario to run")
    return plans


def _loops_of(scenario: Scenario, request: Request, part: tuple[Loop, ...] | None) -> tuple[Loop, ...] | None:
    """Which of its loops are run, where the command line names none those of `part`; None: all of them."""
    if request.loop is None:
        return part
    if request.loop not in scenario.loops:
        raise UsageError(f"--loop: the scenario {scenario.name} has no {request.loop} loop")
    return (request.loop,)


def _sides_of(scenario: Scenario, parameters: msgspec.Struct, request: Request) -> frozenset[str] | None:
    """Which of its sides are run; None: all of them."""
    if not request.sides:
        return None
    names = [side.name for side in scenario.sides(parameters)]
    for wanted in request.sides:
        if wanted not in names:
            raise UsageError(
                f"--side: the scenario {scenario.name} has no side {wanted!r}; its sides are {', '.join(names)}"
            )
    return frozenset(request.sides)


def _disk_of(scenario: Scenario, request: Request) -> str:
    """The preset of the slow disk; empty for a scenario that uses none, and for what is mounted already."""
    wanted, own = request.disk, str(getattr(scenario, "disk", DISK))
    if request.target is not None:
        if wanted:
            raise UsageError(f"--disk: {request.target} is mounted already, on a disk of its own")
        return ""
    if wanted and not own:
        raise UsageError(f"--disk: the scenario {scenario.name} uses no slow disk")
    return preset_of(wanted or own).name if own else ""


def _target_setting(target: Path | None, scenario: Scenario) -> list[str]:
    if target is None:
        return []
    if not has_parameter(scenario, TARGET):
        raise UsageError(f"--target: the scenario {scenario.name} makes its own filesystems")
    if not target.is_dir():
        raise UsageError(f"--target: {target} is not a directory")
    return [f"{TARGET}={target.resolve()}"]


def _check_files(request: Request) -> None:
    for output in (request.json_file, request.html_file):
        if output is not None:
            check_replaceable(str(output))
    if request.html_file is not None:
        check_renderer()


def _cgroups() -> tuple[Hierarchy | None, tuple[str, ...]]:
    hierarchy, problem = usable_hierarchy(TRIAL_BYTES)
    if problem:
        tell(problem)
    return hierarchy, (problem,) if problem else ()


def _exit_code(report: Report) -> int:
    """1 when a promise was broken or a scenario not finished, 2 when nothing could be run at all."""
    if not any(result.passes for result in report.results):
        return 2
    broken = any(one.broken for result in report.results for one in result.passes)
    return int(broken or any(": gave up on " in note for note in report.notes))


def _publish(report: Report, request: Request) -> None:
    """Print the report first: when a file cannot be written by now, the numbers are not lost."""
    print_report(report, sys.stdout)
    sys.stdout.flush()
    outputs: tuple[tuple[Path | None, Callable[[Report], bytes]], ...] = (
        (request.json_file, encode_report),
        (request.html_file, lambda found: render_page(found).encode()),
    )
    for path, render in outputs:
        if path is not None:
            write_results(str(path), render(report))
            report_line(f"deferfs: wrote {path}")


def ask(root: Path, request: Query[Answer]) -> Answer:
    """The answer of the daemon behind the mountpoint `root`."""
    return client.ask(client.find_mount(str(root)), request)
