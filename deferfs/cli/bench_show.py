"""`deferfs bench list`, `disk`, `compare` and `schema`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Final

import msgspec

from deferfs.cli.bench_run import PACKAGES
from deferfs.cli.output import say, say_json, tell
from deferfs.cli.scratch import keep_mounts_private
from deferfs.errors import EnvironmentProblem, UsageError
from deferfs.measure import slow_disk
from deferfs.measure.catalogue import find_scenarios
from deferfs.measure.host.interrupts import Interrupts
from deferfs.measure.results import Report, decode_report, json_schema
from deferfs.measure.stats.contrast import contrast, render_contrast

COLUMNS: Final = 79
"""Width of the text, in columns."""


def list_scenarios() -> None:
    """Name, mechanism, sides and parameters of each."""
    for name, scenario in find_scenarios(PACKAGES).items():
        parameters = scenario.parameters()
        say(name)
        sides = "; ".join(side.words for side in scenario.sides(parameters))
        values = ", ".join(
            f"{field.name}={_plain(getattr(parameters, field.name))}"
            for field in msgspec.structs.fields(scenario.parameters)
        )
        for text in (scenario.mechanism, f"sides: {sides}", f"--set {values}" if values else ""):
            for line in textwrap.wrap(text, COLUMNS, initial_indent="    ", subsequent_indent="    "):
                say(line)


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def check_disk(preset: str | None) -> int:
    """Measure the slow disk; 1 when it was faster than its preset says."""
    if preset is None:
        for one in slow_disk.PRESETS.values():
            text = f"{one.name}: {one.words}; {one.source}"
            for line in textwrap.wrap(text, COLUMNS, subsequent_indent="    "):
                say(line)
        return 0
    chosen = slow_disk.preset_of(preset)
    problem = slow_disk.missing()
    if problem:
        raise EnvironmentProblem(problem)
    keep_mounts_private()
    with Interrupts(tell).installed():
        found = slow_disk.self_check(chosen)
    for line in found.lines():
        say(line)
    say("nothing was faster than stated" if found.is_honest else "FASTER than stated")
    return 0 if found.is_honest else 1


def compare_files(before: Path, after: Path) -> None:
    """A table of everything that both results have."""
    defaults = {name: msgspec.to_builtins(one.parameters()) for name, one in find_scenarios(PACKAGES).items()}
    found = contrast(read_report(before), read_report(after), defaults)
    if not found.rows:
        raise UsageError(f"{before} and {after} have no scenario with the same parameters and disk in common")
    for line in render_contrast(found).splitlines():
        say(line)


def read_report(path: Path) -> Report:
    """The report in a file. UsageError when it cannot be read, or is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return decode_report(data, str(path))


def print_schema() -> None:
    """The JSON Schema of a result."""
    say_json(json_schema())
