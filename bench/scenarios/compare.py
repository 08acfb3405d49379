"""Small files and metadata: deferfs against fuse2fs, gocryptfs and the null filesystem, in turn, as ratios."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.filesystems import Deferfs, Filesystem, Fuse2fs, Gocryptfs, Null, check_programs, fresh
from bench.main import RESULTS, run_scenario, say
from bench.rows import ROWS, time_row
from deferfs.errors import EnvironmentProblem
from deferfs.measure.machine import describe_machine
from deferfs.measure.results import Machine
from deferfs.measure.statistics import RatioSummary, summarize_ratios
from deferfs.measure.wording import latency, spread

OURS: Final = "deferfs"


class Comparison(msgspec.Struct, frozen=True):
    """`seconds` maps filesystem -> row -> one time for each pair; `ratios` other -> row ->
    other/deferfs.
    """

    machine: Machine
    files: int
    pairs: int
    options: str
    seconds: dict[str, dict[str, list[float]]]
    ratios: dict[str, dict[str, RatioSummary]]


def measure(filesystems: Sequence[Filesystem], pairs: int, files: int) -> dict[str, dict[str, list[float]]]:
    """Times of all rows; the filesystems take turns, each fresh for each pair."""
    seconds: dict[str, dict[str, list[float]]] = {
        filesystem.name: {row.name: [] for row in ROWS} for filesystem in filesystems
    }
    for pair in range(1, pairs + 1):
        for filesystem in filesystems:
            say(f"pair {pair} of {pairs}: {filesystem.name}")
            with fresh(filesystem) as root:
                # The root of fuse2fs has a lost+found, and none of ours may be in the way.
                (root / "work").mkdir()
                for row in ROWS:
                    seconds[filesystem.name][row.name].append(time_row(row, root / "work", files))
    return seconds


def ratios_of(seconds: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, RatioSummary]]:
    """Other divided by ours: above 1, deferfs is faster."""
    ratios: dict[str, dict[str, RatioSummary]] = {}
    for other, rows in seconds.items():
        if other == OURS:
            continue
        summaries = {row: summarize_ratios(taken, seconds[OURS][row]) for row, taken in rows.items()}
        ratios[other] = {row: found for row, found in summaries.items() if found is not None}
    return ratios


def show(result: Comparison) -> None:
    """The table: the time of one operation of ours for scale, ratios for the answer."""
    others = list(result.ratios)
    table = Table(
        title=f"{result.files} files; other/deferfs, geometric mean (least-most) of "
        f"{result.pairs} pairs; above 1 deferfs is faster",
        title_justify="left",
        title_style="",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("row")
    table.add_column(OURS, justify="right", no_wrap=True)
    for other in others:
        table.add_column(other, justify="right", no_wrap=True)
    for row in ROWS:
        taken = result.seconds[OURS][row.name]
        each = sum(taken) / len(taken) / result.files
        table.add_row(row.name, latency(each * 1e9), *(spread(result.ratios[other].get(row.name)) for other in others))
    Console(width=79, highlight=False).print(table)


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--files", type=click.IntRange(min=100), default=2000, show_default=True)
@click.option("-o", "options", default="", metavar="OPTIONS", help="Mount options of deferfs.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), default=RESULTS / "compare.json")
def command(pairs: int, files: int, options: str, json_file: Path) -> None:
    """Compare deferfs with fuse2fs and gocryptfs on small files and metadata."""
    if not Path("/proc/sys/vm/drop_caches").exists():
        raise EnvironmentProblem("no /proc/sys/vm/drop_caches; run on Linux, as root")
    filesystems: list[Filesystem] = [Deferfs(options), Fuse2fs(), Gocryptfs(), Null()]
    check_programs(filesystems)
    seconds = measure(filesystems, pairs, files)
    result = Comparison(describe_machine(Path("/tmp")), files, pairs, options, seconds, ratios_of(seconds))
    json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    show(result)
    say(f"wrote {json_file}")


if __name__ == "__main__":
    run_scenario(command)
