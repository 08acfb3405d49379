"""`deferfs crash explore` and `deferfs crash replay`."""

from __future__ import annotations

import click

from deferfs.cli.output import SIZE, Number, Whole
from deferfs.contract.settings import EVICT_MODES


@click.group(
    "crash", short_help="Explore what crashes may leave.", context_settings={"help_option_names": ["-h", "--help"]}
)
def command() -> None:
    """Explore what crashes may leave of a filesystem, and whether it recovers as promised."""


@command.command(short_help="Run a volume beside a model and check every crash state.")
@click.option("--workload", default="random", show_default=True, help="random, or all of seq-1, seq-2, seq-3 (ACE).")
@click.option("--operations", default="", metavar="WORDS", help="Draw only these, separated by commas.")
@click.option("--length", type=Whole(1, 100_000), default=120, show_default=True, help="Actions of a run.")
@click.option("--seed", type=Whole(0), default=None, help="Seed of the first run; the others follow. Default: 0.")
@click.option(
    "--time",
    "seconds",
    type=Number(0, min_open=True),
    help="Stop after this many seconds. Default: 60, unless --runs is given.",
)
@click.option("--runs", type=Whole(1), help="Stop after this many runs.")
@click.option("--jobs", type=Whole(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--scheduler", metavar="ADDRESS", help="Use the workers of this Dask scheduler.")
@click.option("--evict", type=click.Choice(EVICT_MODES), help="Default: each in turn.")
@click.option("-b", "--block-size", type=SIZE, default=1024, show_default=True)
@click.option(
    "--torn", type=Whole(0), default=24, show_default=True, help="States with that write torn, for each write."
)
@click.option("--output", default=".", metavar="DIR", help="Where a failure is written.")
@click.option("--shrink", "shrink_seconds", type=Number(0), default=60, show_default=True, metavar="SECONDS")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explore(
    workload: str,
    operations: str,
    length: int,
    seed: int | None,
    seconds: float | None,
    runs: int | None,
    jobs: int,
    scheduler: str | None,
    evict: str | None,
    block_size: int,
    torn: int,
    output: str,
    shrink_seconds: float,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run volume and model together, and judge every state that a crash may leave.

    No kernel takes part. Exit codes: 0 nothing found, 1 a failure was found and written out, 2 usage.
    """
    from deferfs.cli.crash_run import Request, run_explore
    from deferfs.crash.exploration import Task

    words = tuple(word.strip() for word in operations.split(",") if word.strip())
    first = Task(0 if seed is None else seed, length, words, evict or "", block_size, workload, torn)
    if runs is None and seconds is None:
        seconds = 60
    request = Request(first, seconds, runs, jobs, scheduler, output, shrink_seconds)
    return run_explore(request, quiet=quiet, as_json=as_json)


@command.command()
@click.argument("failure")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(failure: str, as_json: bool) -> int:
    """Run a failure again that `explore` has written (the .py file).

    Exit codes: 0 it does not fail any more, 1 it still fails.
    """
    from deferfs.cli.crash_run import run_replay

    return run_replay(failure, as_json=as_json)


@command.command(short_help="Crashes of ext4, xfs, btrfs or deferfs.")
@click.argument("filesystem")
@click.option("--states", type=Whole(1), default=200, show_default=True, help="Crash states to mount.")
@click.option("--steps", type=Whole(1, 10_000), default=60, show_default=True, help="Operations of the work.")
@click.option("--seed", type=Whole(0), default=0, show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def other(filesystem: str, states: int, steps: int, seed: int, quiet: bool) -> int:
    """Record what ext4, xfs, btrfs or deferfs writes, mount what crashes leave, and check what fsync promised.

    Needs root, FUSE and loop devices. Exit codes: 0 all as promised, 1 a promise is broken, 2 usage or environment.
    """
    from deferfs.cli.crash_run import run_other

    return run_other(filesystem, states=states, steps=steps, seed=seed, quiet=quiet)
