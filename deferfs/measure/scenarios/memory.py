"""Does the daemon keep its promised bound on resident memory? Peak resident size after each kind of work.

Each part has its own mount, on a fresh image except for the walk, which needs files. VmHWM is compared with the bound
that `deferfs stat` reports at the end.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from deferfs.errors import UsageError
from deferfs.measure.mounts.daemon import daemon_of, statistics_of
from deferfs.measure.mounts.rivals import Deferfs, fresh, mounted
from deferfs.measure.report.wording import size
from deferfs.measure.scenario import Pass, Side, Surroundings
from deferfs.measure.simple import SimpleScenario, value_pass
from deferfs.measure.work.walk_memory import measure_walk

CHUNK: Final = 1 << 20
GIB: Final = 1 << 30
FILES_A_DIRECTORY: Final = 10_000
LARGE_IMAGE_BYTES: Final = 2 << 40


class Part(msgspec.Struct, frozen=True):
    """One kind of work: peak resident size and the promised bound, in bytes."""

    name: str
    highest_bytes: int
    promised_bytes: int
    budget_bytes: int
    inodes_bytes: int


def sequential(root: Path, gigabytes: int) -> None:
    """Files of 1 GiB, one after the other, in pieces of 1 MiB."""
    data = random.randbytes(CHUNK)
    for number in range(gigabytes):
        with open(root / f"file-{number}", "wb", buffering=0) as file:
            file.writelines(data for _ in range(GIB // CHUNK))


def scattered(root: Path, gigabytes: int) -> None:
    """Write 16 KiB at random places of one file of 2 GiB: at first each write makes an extent."""
    data, chance = random.randbytes(16 << 10), random.Random(1)
    with open(root / "file", "wb", buffering=0) as file:
        for _ in range(gigabytes * GIB // len(data)):
            os.pwrite(file.fileno(), data, chance.randrange(2 * GIB // len(data)) * len(data))


def full(root: Path, gigabytes: int) -> None:
    """Fill the disk, remove a file, fill it again."""
    data = random.randbytes(CHUNK)
    for turn in range(gigabytes):
        with suppress(OSError), open(root / f"file-{turn}", "wb", buffering=0) as file:
            for _ in range(GIB // CHUNK):
                file.write(data)
                if not turn % 2:
                    os.fsync(file.fileno())
        if turn > 2:
            os.unlink(root / f"file-{turn - 1}")


def churn(root: Path, files: int) -> None:
    """Small files, made and removed."""
    for number in range(files):
        path = root / f"file-{number % 1000}"
        path.write_bytes(b"x" * 3000)
        if number % 1000 == 999:
            for old in range(1000):
                os.unlink(root / f"file-{old}")


def make_tree(root: Path, files: int) -> None:
    """Small files, FILES_A_DIRECTORY in each directory."""
    for number in range(files):
        directory = root / f"directory-{number // FILES_A_DIRECTORY}"
        if not number % FILES_A_DIRECTORY:
            directory.mkdir()
        (directory / f"file-{number}").write_bytes(b"x")


def measured(root: Path, name: str, surroundings: Surroundings) -> Part:
    """The daemon's figures at the end of a part."""
    memory = statistics_of(root, surroundings.ask).memory
    found = Part(name, memory.resident_highest_bytes, memory.promised_bytes, memory.budget_bytes, memory.inode_bytes)
    surroundings.tell(part_words(found))
    return found


def part_words(part: Part) -> str:
    """One line."""
    kept = "kept" if part.highest_bytes <= part.promised_bytes else "BROKEN"
    return (
        f"{part.name}: {size(part.highest_bytes)} resident at most; promised {size(part.promised_bytes)}"
        f" (budget {size(part.budget_bytes)}): {kept}"
    )


class Parameters(msgspec.Struct, frozen=True):
    """`gigabytes` written in each part, `files` made and walked, `churned` made and removed; `options` of the mount;
    `only`: run just these parts."""

    gigabytes: int = 20
    files: int = 1_000_000
    churned: int = 200_000
    options: str = "memory=64M"
    only: tuple[str, ...] = ()


def on_fresh_image(
    surroundings: Surroundings, options: str, image_bytes: int, name: str, work: Callable[[Path], None]
) -> Part:
    """One part on an image of its own."""
    surroundings.tell(name)
    with fresh(Deferfs(options, image_bytes), surroundings.scratch) as root:
        daemon_of(root, surroundings)
        work(root)
        os.sync()
        return measured(root, name, surroundings)


def walk(surroundings: Surroundings, options: str, files: int) -> list[Part]:
    """Make a tree, and walk it on new mounts: in a memory cgroup, and without one."""
    filesystem, home = Deferfs(options, max(8 * GIB, 4096 * files)), surroundings.scratch
    surroundings.tell(f"making {files:,} files")
    (home / "mnt").mkdir(parents=True)
    filesystem.make(home)
    with mounted(filesystem, home, home / "mnt") as root:
        daemon_of(root, surroundings)
        make_tree(root, files)
        found = [measured(root, f"{files:,} files made", surroundings)]
    for limited in (True, False) if surroundings.hierarchy else (False,):
        name = f"{files:,} files walked {'in a memory cgroup' if limited else 'without a memory limit'}"
        surroundings.tell(name)
        with mounted(filesystem, home, home / "mnt") as root:
            budget = statistics_of(root, surroundings.ask).memory.budget_bytes
            measure_walk(root, daemon_of(root, surroundings), budget, limited=limited)
            found.append(measured(root, name, surroundings))
    shutil.rmtree(home)
    return found


PARTS: Final = ("sequential", "random", "full", "churn", "large", "walk")


def measure(side: Side, parameters: Parameters, surroundings: Surroundings, number: int) -> Pass:
    """All selected parts, one after the other."""
    wanted = parameters.only or PARTS
    if not set(wanted) <= set(PARTS):
        raise UsageError(f"only={','.join(parameters.only)}: the parts are {', '.join(PARTS)}")
    gigabytes, churned = parameters.gigabytes, parameters.churned
    free = shutil.disk_usage(surroundings.scratch.parent).free
    if "sequential" in wanted and free < (gigabytes + 2) * GIB:
        raise UsageError(f"gigabytes={gigabytes}: only {size(free)} are free in {surroundings.scratch.parent}")
    start = time.monotonic()
    works: dict[str, tuple[str, int, Callable[[Path], None]]] = {
        "sequential": (f"{gigabytes} GiB written", (gigabytes + 1) * GIB, lambda root: sequential(root, gigabytes)),
        "random": (f"{gigabytes} GiB written at random", 4 * GIB, lambda root: scattered(root, gigabytes)),
        "full": (f"{gigabytes} GiB written to a full disk", 3 * GIB, lambda root: full(root, gigabytes)),
        "churn": (f"{churned:,} files made and removed", 4 * GIB, lambda root: churn(root, churned)),
        "large": ("an empty image of 2 TiB", LARGE_IMAGE_BYTES, lambda root: None),
    }
    parts = [
        on_fresh_image(surroundings, parameters.options, image_bytes, name, work)
        for key, (name, image_bytes, work) in works.items()
        if key in wanted
    ]
    if "walk" in wanted:
        parts += walk(surroundings, parameters.options, parameters.files)
    counters = {f"{part.name}_bytes": float(part.highest_bytes) for part in parts}
    lines = [part_words(part) for part in parts]
    broken = [line for line in lines if line.endswith("BROKEN")]
    return value_pass(side, time.monotonic() - start, counters, notes=lines, broken=broken)


def tell(passes: Sequence[Pass], parameters: Parameters) -> list[str]:
    """Whether the promise was kept."""
    broken = sum(len(one.broken) for one in passes)
    parts = sum(len(one.counters) for one in passes)
    return [f"the daemon stayed within what it promises in {parts - broken} of {parts} kinds of work"]


SCENARIO = SimpleScenario(
    name="memory",
    mechanism="The highest resident size of the daemon after each kind of work, against what `deferfs stat` promises.",
    parameters=Parameters,
    work=measure,
    tell=tell,
)
