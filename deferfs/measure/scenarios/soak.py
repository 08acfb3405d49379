"""The soak: everything at once, for any length of time, compared with what is promised."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Final

import msgspec

from deferfs.measure.mounts.daemon import daemon_of
from deferfs.measure.mounts.rivals import Deferfs, mounted
from deferfs.measure.scenario import Pass, Side, Surroundings
from deferfs.measure.simple import SimpleScenario, value_pass
from deferfs.measure.soak.disturbances import Mount
from deferfs.measure.soak.watching import Soak, check_image, soak

IMAGE_BYTES: Final = 1 << 30
LOG: Final = "4M"
MEMORY: Final = "8M"
WORDS: Final = {True: "kept", False: "NOT KEPT", None: "too short to judge"}


class Parameters(msgspec.Struct, frozen=True):
    """`processes` work for `minutes`; `options`: further ones of the mount; `log`: file for the daemon's log, if
    any."""

    minutes: float = 30.0
    processes: int = 4
    options: str = ""
    log: str = ""


def measure(side: Side, parameters: Parameters, surroundings: Surroundings, number: int) -> Pass:
    """One soak."""
    home = surroundings.scratch
    (home / "mnt").mkdir(parents=True)
    log = parameters.log or str(home / "daemon.log")
    filesystem = Deferfs(f"memory={MEMORY},log={log},{parameters.options}", IMAGE_BYTES, ("--journal-size", LOG))
    filesystem.make(home)
    seconds = 60 * parameters.minutes
    surroundings.tell(f"{parameters.processes} processes for {parameters.minutes:g} minutes")
    with mounted(filesystem, home, home / "mnt") as root:
        daemon_of(root, surroundings)
        found = soak(Mount(root, surroundings.ask), seconds, parameters.processes, surroundings.seed)
    found.verdicts.append(check_image(home / "image"))
    shutil.rmtree(home)
    return as_pass(side, found)


def as_pass(side: Side, found: Soak) -> Pass:
    """The verdicts as lines; broken promises become `Pass.broken`."""
    lines = {verdict: f"{verdict.promise}: {verdict.figures}: {WORDS[verdict.kept]}" for verdict in found.verdicts}
    counters: dict[str, float] = {
        "rounds_total": found.rounds,
        "samples_total": len(found.samples),
        "promises_kept_total": sum(verdict.kept is True for verdict in found.verdicts),
        "resident_highest_bytes": max(sample.rss for sample in found.samples),
        "queued_highest_total": max(sample.queued for sample in found.samples),
        "pending_highest_bytes": max(sample.pending_bytes for sample in found.samples),
        "oldest_highest_seconds": max(sample.oldest for sample in found.samples),
    }
    broken = [line for verdict, line in lines.items() if verdict.kept is False]
    return value_pass(side, found.seconds, counters, notes=list(lines.values()), broken=broken)


def tell(passes: Sequence[Pass], parameters: Parameters) -> list[str]:
    """How many promises were kept."""
    kept = sum(int(one.counters["promises_kept_total"]) for one in passes)
    broken = sum(len(one.broken) for one in passes)
    return [f"{kept} promises were kept and {broken} were not in {parameters.minutes:g} minutes of everything at once"]


SCENARIO = SimpleScenario(
    name="soak",
    mechanism=(
        "Everything at once, in a memory budget and a log that are too small for it: memory stays flat, the backlog "
        "bounded, and statfs is exact at the end."
    ),
    parameters=Parameters,
    work=measure,
    tell=tell,
)
