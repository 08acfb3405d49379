"""The deadlock of the kernel people, on purpose: an operation holds log space and needs memory, whose reclaim evicts
inodes, whose inactivation needs log space.

The smallest log there is, and a memory budget that is cut to the smallest there is while operations wait for the log.
Writers set attributes so large that two of them fill a transaction; before, the memory is filled with metadata and with
files that the kernel has forgotten, each of which leaves an access time to be written when it is evicted. Inline, the
report shows the circle with both stacks, and the daemon breaks it each time it comes about; deferred, there is none.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread
from typing import Any, Final

import click
import msgspec

from bench.daemon import read_statistics
from bench.filesystems import Deferfs, fresh
from bench.main import RESULTS, run_scenario, say
from bench.rows import DROP_NAMES, sync
from deferfs.errors import DeferfsError
from deferfs.mount import control_client

MKFS: Final = ("-b", "1024", "--journal-size", "256K")
MOUNT: Final = "relatime"
MEMORY: Final = ("32M", "4M")
"""The budget while files are read, and what it is cut to then."""
IMAGE_BYTES: Final = 256 << 20
FILES: Final = 1000
BALLAST: Final = 300
"""Files whose attributes are looked at to fill the memory."""
DROPS_MAX: Final = 50
"""Entries used lately survive the first pass, and the FORGETs come in their own time."""
WRITERS: Final = 8
WRITES: Final = 10
"""Of each writer, in a round."""
ATTRIBUTE_BYTES: Final = (38_000, 33_000)
"""Some 44 and 39 blocks of a transaction of 85."""


class Outcome(msgspec.Struct, frozen=True):
    """What the daemon tells at the end. `report` is that of `deferfs ctl DIR lockdep=report`."""

    evict: str
    seconds: float
    rounds: int
    direct_reclaims: int
    forbidden_waits: int
    cycles: int
    broken: int
    report: str


def make_files(root: Path) -> None:
    """Files to read, and ballast."""
    for number in range(FILES):
        (root / f"f{number}").write_bytes(b"content")
    for number in range(BALLAST):
        path = root / f"b{number}"
        path.touch()
        os.setxattr(path, "user.large", bytes(ATTRIBUTE_BYTES[0]))
    sync(root)  # the kernel forgets only what is clean


def set_value(root: Path, key: str, value: str) -> str:
    """As `deferfs ctl`; what it prints."""
    return str(control_client.ask(control_client.find_mount(str(root)), "set", key=key, value=value))


def fill_memory(root: Path) -> None:
    """With metadata, and with files that the kernel has forgotten and whose new access time is not written yet."""
    set_value(root, "memory", MEMORY[0])
    for number in range(FILES):
        path = root / f"f{number}"
        os.utime(path, ns=(0, 1))  # so that reading it changes the time
        path.read_bytes()
    for number in range(BALLAST):
        os.getxattr(root / f"b{number}", "user.large")
    for _ in range(DROPS_MAX):
        Path("/proc/sys/vm/drop_caches").write_text(DROP_NAMES)
        if read_statistics(root)["inodes"]["idle"] > FILES // 2:
            return
    raise DeferfsError(f"{root}: the kernel forgets nothing")


def write_attributes(root: Path) -> None:
    """Several writers, most of whom wait for the log at any time; the memory is cut meanwhile."""

    def write(number: int) -> None:
        value = bytes(ATTRIBUTE_BYTES[number % 2])
        try:
            for _ in range(WRITES):
                os.setxattr(root / f"b{number}", "user.large", value)
        except OSError as error:
            errors.append(error)

    errors: list[OSError] = []
    threads = [Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    set_value(root, "memory", MEMORY[1])
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def measure(evict: str, rounds: int) -> Outcome:
    """One policy on a fresh filesystem."""
    with fresh(Deferfs(f"{MOUNT},evict={evict}", IMAGE_BYTES, MKFS)) as root:
        make_files(root)
        fill_memory(root)  # what is read now was still in the page cache
        start = time.monotonic()
        for _ in range(rounds):
            fill_memory(root)
            write_attributes(root)
        elapsed = time.monotonic() - start
        statistics: dict[str, Any] = read_statistics(root)
        report = set_value(root, "lockdep", "report")
    context = statistics["reclaim_context"]
    return Outcome(
        evict,
        elapsed,
        rounds,
        statistics["memory"]["direct_reclaims_total"],
        context["violations_total"],
        context["lock_order_cycles"],
        context["circular_waits_broken_total"],
        report,
    )


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="For each policy.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), default=RESULTS / "deadlock.json")
def command(rounds: int, json_file: Path) -> None:
    """The circle log space - memory - log space, inline and deferred."""
    outcomes = []
    for evict in ("inline", "deferred"):
        say(f"{evict}, {rounds} rounds")
        outcomes.append(measure(evict, rounds))
    json_file.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)) + b"\n")
    for outcome in outcomes:
        click.echo(
            f"{outcome.evict}: {outcome.rounds} rounds in {outcome.seconds:.1f} s,"
            f" {outcome.direct_reclaims} direct reclaims, {outcome.forbidden_waits} waits inside of reclaim,"
            f" {outcome.cycles} circles, {outcome.broken} waits that could never end"
        )
    for outcome in outcomes:
        click.echo(f"\n{outcome.evict}:\n{outcome.report}")
    say(f"wrote {json_file}")


if __name__ == "__main__":
    run_scenario(command)
