"""`deferfs bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from deferfs.cli.output import Whole


class BenchCommand(click.Command):
    """Scenarios are arguments, and a few words are commands of their own: `deferfs bench list`. No scenario has one of
    these names.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the first word names, or of this one."""
        if args and args[0] in SUBCOMMANDS:
            name, *rest = args
            return SUBCOMMANDS[name].make_context(f"{info_name} {name}", rest, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, after the options."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(90)) for name, command in SUBCOMMANDS.items()])


SUBCOMMANDS: dict[str, click.Command] = {}
"""The words that are commands, filled in below."""
LOOPS: Final = ("closed", "open")


def _subcommand(name: str) -> Callable[[Callable[..., object]], click.Command]:
    def register(function: Callable[..., object]) -> click.Command:
        made = click.command(name)(function)
        SUBCOMMANDS[name] = made
        return made

    return register


@click.command("bench", cls=BenchCommand, short_help="Measure which task waits for inode eviction.")
@click.argument("scenarios", metavar="[SCENARIO...]", nargs=-1)
@click.option("--full", is_flag=True, help="The sweeps of the scenarios, with long passes.")
@click.option("--pairs", type=Whole(min=1), help="Pairs of passes; the default is the scenario's own.")
@click.option(
    "--disk",
    metavar="PRESET",
    help="The slow disk below every side; `deferfs bench disk` lists the presets.  [default: the scenario's own]",
)
@click.option(
    "--loop",
    type=click.Choice(LOOPS),
    help="Only the passes of this loop.  [default: all that the scenario has]",
)
@click.option(
    "--side",
    "sides",
    multiple=True,
    metavar="NAME",
    help="Only this side of the scenario; may be repeated.  [default: all of them]",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the scenario.")
@click.option(
    "--target",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Work in DIR, on whatever is mounted there (churn).",
)
@click.option(
    "--aa", is_flag=True, help="Compare one side with itself, to show how often a difference appears by chance."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the order of the sides, and of the work.")
@click.option(
    "--scratch",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="Where to put images.  [default: the directory for temporary files]",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the result to FILE.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), metavar="FILE", help="Write a page to FILE.")
def command(**options: Any) -> int:
    """Which task waits for inode eviction, and how long: inline against deferred, on a slow disk.

    Each SCENARIO isolates one mechanism; without any, allocation and the open loop of direct-reclaim are run. Its sides
    take turns, in random order, pair after pair, from the same state each time. Ends with sentences, the ratios behind
    them with their 95 % intervals, and where the time went. Ctrl-C ends it with a report of what is finished.
    """
    from deferfs.cli.bench_run import Request, run_benchmark

    return run_benchmark(Request(**options))


@_subcommand("list")
def list_command() -> None:
    """List the scenarios, what each isolates, and its parameters."""
    from deferfs.cli.bench_show import list_scenarios

    list_scenarios()


@_subcommand("disk")
@click.argument("preset", required=False)
def disk_command(preset: str | None) -> int:
    """Measure the slow disk by itself, or list its presets.

    With PRESET, check that it is as slow as stated; the exit code is 1 when a request was faster.
    """
    from deferfs.cli.bench_show import check_disk

    return check_disk(preset)


@_subcommand("compare")
@click.argument("before", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("after", metavar="B.json", type=click.Path(path_type=Path))
def compare_command(before: Path, after: Path) -> None:
    """Compare two results of `--json`: A divided by B, so above 1 B is faster."""
    from deferfs.cli.bench_show import compare_files

    compare_files(before, after)


@_subcommand("schema")
def schema_command() -> None:
    """Print the JSON Schema of `--json`."""
    from deferfs.cli.bench_show import print_schema

    print_schema()
