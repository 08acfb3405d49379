"""The result of `deferfs bench`, as written by `--json`. `docs/benchmarking.md` describes every field.

A change visible to a reader of the file needs a new `SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from deferfs.errors import DeferfsError, UsageError
from deferfs.measure.scenario import Loop, Measure, Pass, Side
from deferfs.measure.stats.statistics import RatioSummary, Verdict

SCHEMA: Final = "deferfs-bench/2"


class Machine(msgspec.Struct, frozen=True):
    """The machine of a run."""

    kernel: str
    cpus: int
    memory_bytes: int
    python: str
    deferfs: str
    scratch_filesystem: str
    """Type of the filesystem that holds the images: fsync costs nothing on tmpfs."""


class Comparison(msgspec.Struct, frozen=True):
    """One measure of two sides: `numerator` divided by `denominator` (names of sides): above 1 the denominator is
    faster.

    `ratio` is None when in no pair both passes have the measure. `faster` names the faster side if the verdict is
    `faster`. `pairs_used` have entered the ratio; `pairs_busy` and `pairs_unfinished` were left out because other
    programs used the processors, or because a pass did not finish.
    """

    measure: Measure
    numerator: str
    denominator: str
    ratio: RatioSummary | None
    verdict: Verdict
    faster: str = ""
    pairs_used: int = 0
    pairs_busy: int = 0
    pairs_unfinished: int = 0


class Resampled(msgspec.Struct, frozen=True):
    """An A/A run of one measure: in `no_difference` of `of` random pairings of passes of the same side the verdict was
    `no difference`.
    """

    measure: Measure
    no_difference: int
    of: int


class Result(msgspec.Struct, frozen=True):
    """One scenario with one set of parameters.

    `missing`: side -> why it could not be run. `disk`: the preset of the slow disk. `passes`: in the order in which
    they were run, without the warm-up. `aa`: filled by an A/A run, which has no comparisons.
    """

    scenario: str
    mechanism: str
    parameters: dict[str, Any]
    disk: str
    sides: list[Side]
    missing: dict[str, str]
    measures: list[Measure]
    passes: list[Pass]
    comparisons: list[Comparison]
    sentences: list[str]
    aa: list[Resampled] = []

    def of_side(self, name: str, loop: Loop | None = None) -> list[Pass]:
        """The passes of one side, in order of the pairs; of one loop, or of both."""
        found = [one for one in self.passes if one.side == name and loop in (None, one.loop)]
        return sorted(found, key=lambda one: one.pair)

    @property
    def ran(self) -> list[Side]:
        """The sides that have passes."""
        names = {one.side for one in self.passes}
        return [side for side in self.sides if side.name in names]


class Report(msgspec.Struct, frozen=True):
    """Everything about one run of `deferfs bench`.

    `created`: ISO 8601, UTC. `busy`: other programs used the processors so much that some comparison has no verdict.
    `notes`: lines that a reader must know. `interrupted`: the run was not completed.
    """

    schema: str
    created: str
    machine: Machine
    busy: bool
    results: list[Result]
    notes: list[str]
    seed: int = 0
    interrupted: bool = False


def encode_report(report: Report) -> bytes:
    """The JSON file of a report."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def decode_report(data: bytes, name: str) -> Report:
    """The report in a file called `name`. UsageError when it is no report, or has another version."""
    try:
        head = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UsageError(f"{name}: not JSON: {error}") from error
    found = head.get("schema") if isinstance(head, dict) else None
    if not isinstance(found, str) or not found.startswith("deferfs-bench/"):
        raise UsageError(f"{name}: not a result of `deferfs bench --json`")
    if found != SCHEMA:
        raise UsageError(f"{name}: has the schema {found}; this version reads {SCHEMA}")
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.ValidationError, DeferfsError) as error:
        raise UsageError(f"{name}: does not match its schema {SCHEMA}: {error}") from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a report."""
    return msgspec.json.schema(Report)


def series_names(passes: Sequence[Pass]) -> list[str]:
    """All series of some passes, in order of appearance."""
    return list(dict.fromkeys(name for one in passes for name in one.series))
