"""What many files cost: in one directory, in memory, and as orphans at the next mount."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
import msgspec

from bench.daemon import daemon_pid, read_statistics
from bench.filesystems import Deferfs, mounted, scratch
from bench.main import RESULTS, run_scenario, say
from bench.scenarios.directory_growth import BATCH, STEPS, Growth, measure_growth
from bench.scenarios.orphan_mount import Orphans, measure_orphans
from bench.scenarios.walk_memory import Walk, measure_walk
from deferfs.measure.machine import describe_machine
from deferfs.measure.results import Machine
from deferfs.measure.wording import latency, size, spread, times

IMAGE_BYTES: Final = 8 << 30
BYTES_PER_ENTRY: Final = 2048
"""Room for an inode of 512 bytes and its entry, with plenty to spare."""
PARTS: Final = ("directory", "walk", "orphans")


class Scaling(msgspec.Struct, frozen=True):
    """The parts that were measured."""

    machine: Machine
    growth: Growth | None
    walks: list[Walk]
    orphans: list[Orphans]


def measure_directory(entries: int, options: str, walks: bool) -> tuple[Growth, list[Walk]]:
    """One image for both: what the growth made is what is walked, after a mount of its own each."""
    filesystem = Deferfs(options, max(IMAGE_BYTES, entries * BYTES_PER_ENTRY))
    found = []
    with scratch() as home:
        filesystem.make(home)
        with mounted(filesystem, home, home / "mnt") as root:
            growth = measure_growth(root, entries)
        for limited in (True, False) if walks else ():
            say(f"walking, {'in a memory cgroup' if limited else 'without a memory limit'}")
            with mounted(filesystem, home, home / "mnt") as root:
                budget = int(read_statistics(root)["memory"]["budget_bytes"])
                found.append(measure_walk(root, daemon_pid(root), budget, limited=limited))
    return growth, found


def show(result: Scaling) -> None:
    """One line for each question."""
    if result.growth:
        growth = result.growth
        small = sum(growth.small) / len(growth.small)
        click.echo(
            f"create: {latency(small * 1e9)} an entry in a directory of {BATCH:,};"
            f" in one of up to {growth.entries:,}: {spread(growth.ratio)} as long,"
            f" in its second half {spread(growth.late)}, overall {times(growth.overall)}"
        )
    for walk in result.walks:
        click.echo(
            f"walk: {walk.files:,} files {'in' if walk.limited else 'without'} a memory cgroup:"
            f" daemon {size(walk.start)} at the start, {size(walk.peak)} at most,"
            f" {size(walk.end)} after; budget {size(walk.budget)},"
            f" {size(abs(walk.beyond))} {'beyond' if walk.beyond > 0 else 'less than'} both"
        )
    for orphans in result.orphans:
        mean = sum(orphans.clean) / len(orphans.clean)
        click.echo(
            f"mount: clean {latency(mean * 1e9)}; with {orphans.orphans:,} orphans"
            f" left by {'a crash, and its log' if orphans.left_by == 'crash' else 'an unmount'}:"
            f" {spread(orphans.ratio)} as long; orphans gone"
            f" {latency(max(orphans.drain) * 1e9)} later"
        )


@click.command()
@click.option("--entries", type=int, default=1_000_000, show_default=True)
@click.option("--orphans", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True, help="Of mounts.")
@click.option("-o", "options", default="memory=64M", show_default=True, metavar="OPTIONS")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Leave the other parts out.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), default=RESULTS / "scaling.json")
def command(entries: int, orphans: int, pairs: int, options: str, only: tuple[str, ...], json_file: Path) -> None:
    """Cost of many entries in a directory, memory while they are walked, mounting with orphans."""
    if entries < STEPS * BATCH * 2 or entries % STEPS:
        raise click.BadParameter(f"--entries must be a multiple of {STEPS} from {STEPS * BATCH * 2} up")
    parts = only or PARTS
    growth: Growth | None = None
    walks: list[Walk] = []
    found: list[Orphans] = []
    if "directory" in parts or "walk" in parts:
        growth, walks = measure_directory(entries, options, "walk" in parts)
    if "orphans" in parts:
        for crash in (False, True):
            with scratch() as home:
                found.append(measure_orphans(home, orphans, pairs, crash=crash))
    result = Scaling(describe_machine(Path("/tmp")), growth, walks, found)
    json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    show(result)
    say(f"wrote {json_file}")


if __name__ == "__main__":
    run_scenario(command)
