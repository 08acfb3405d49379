"""`deferfs bench`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("bench")
@click.argument("scenario", type=click.Choice(["churn"]), default="churn")
@click.option(
    "--target",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Work in DIR, on whatever is mounted there, instead of on a scratch image.",
)
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True, help="Pairs of runs.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.5),
    default=6.0,
    show_default=True,
    help="How long one run should take; its amount of work follows from that.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=0, max=1000),
    default=0,
    help="Amount of work of one run, instead of --seconds.",
)
@click.option(
    "--memory-limit",
    default="24M",
    show_default=True,
    metavar="SIZE",
    help="Memory cgroup of workload and probes; `none` for no limit.",
)
@click.option("--daemon-inside", is_flag=True, help="Put the daemon into the memory cgroup too.")
@click.option(
    "--tree-files",
    type=click.IntRange(min=200),
    default=16_000,
    show_default=True,
    help="Cold files: more than the cgroup holds dentries for.",
)
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTIONS",
    default=("memory=16M",),
    show_default=True,
    help="Mount options for every run on a scratch image.",
)
@click.option(
    "--scratch",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="Where to put scratch images.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write all results to FILE.",
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a page with plots to FILE.",
)
def command(
    scenario: str,
    target: Path | None,
    pairs: int,
    seconds: float,
    rounds: int,
    memory_limit: str,
    daemon_inside: bool,
    tree_files: int,
    options: tuple[str, ...],
    scratch: Path | None,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Compare inline with deferred eviction, pair by pair.

    A workload creates, writes, stats, reopens and deletes files inside a memory cgroup that is
    too small for the tree it works on, while probes record how long create, stat, a 4 KiB write,
    fsync and touching fresh memory take. A control that has nothing to clean up is the floor.
    """
    from deferfs.cli.bench_churn import Request, run_benchmark

    assert scenario == "churn", scenario
    run_benchmark(
        Request(
            target=target,
            pairs=pairs,
            seconds=seconds,
            rounds=rounds,
            memory_limit=memory_limit,
            daemon_inside=daemon_inside,
            tree_files=tree_files,
            options=options,
            scratch=scratch,
            json_file=json_file,
            html_file=html_file,
        )
    )
