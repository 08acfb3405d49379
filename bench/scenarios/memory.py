"""Does the daemon keep its promise of how much stays resident? The highest resident size after each kind of work.

Each part has a mount of its own, on a fresh image but for the walk, which needs files. VmHWM is compared with what
`deferfs stat` promises at the end.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import click
import msgspec

from bench.daemon import daemon_pid, read_statistics
from bench.filesystems import Deferfs, mounted, scratch
from bench.main import RESULTS, run_scenario, say
from bench.scenarios.walk_memory import measure_walk
from deferfs.measure.machine import describe_machine
from deferfs.measure.results import Machine
from deferfs.measure.wording import size

CHUNK: Final = 1 << 20
GIB: Final = 1 << 30
FILES_A_DIRECTORY: Final = 10_000
LARGE_IMAGE_BYTES: Final = 2 << 40


class Part(msgspec.Struct, frozen=True):
    """One kind of work: the most that was resident, and the promise; bytes."""

    name: str
    highest_bytes: int
    promised_bytes: int
    budget_bytes: int
    inodes_bytes: int


class MemoryResult(msgspec.Struct, frozen=True):
    """All parts that were measured."""

    machine: Machine
    options: str
    parts: list[Part]


def sequential(root: Path, gigabytes: int) -> None:
    """Files of 1 GiB, one after the other, in pieces of 1 MiB."""
    data = random.randbytes(CHUNK)
    for number in range(gigabytes):
        with open(root / f"file-{number}", "wb", buffering=0) as file:
            file.writelines(data for _ in range(GIB // CHUNK))


def scattered(root: Path, gigabytes: int) -> None:
    """Pieces of 16 KiB at random places of one file of 2 GiB: at first each makes an extent."""
    data, chance = random.randbytes(16 << 10), random.Random(1)
    with open(root / "file", "wb", buffering=0) as file:
        for _ in range(gigabytes * GIB // len(data)):
            os.pwrite(file.fileno(), data, chance.randrange(2 * GIB // len(data)) * len(data))


def full(root: Path, gigabytes: int) -> None:
    """A disk that is full: filled, a file removed, filled again."""
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


def measured(root: Path, name: str) -> Part:
    """What the daemon of the mount says at the end of a part."""
    memory = read_statistics(root)["memory"]
    found = Part(
        name,
        int(memory["resident_highest_bytes"]),
        int(memory["promised_bytes"]),
        int(memory["budget_bytes"]),
        int(memory["inode_bytes"]),
    )
    show(found)
    return found


def on_fresh_image(options: str, image_bytes: int, name: str, work: Callable[[Path], None]) -> Part:
    """One part on an image of its own."""
    say(name)
    filesystem = Deferfs(options, image_bytes)
    with scratch() as home:
        filesystem.make(home)
        with mounted(filesystem, home, home / "mnt") as root:
            work(root)
            os.sync()
            return measured(root, name)


def walk(options: str, files: int) -> list[Part]:
    """A tree is made, and walked by the next mount: in a memory cgroup, and without one."""
    filesystem = Deferfs(options, max(8 * GIB, 4096 * files))
    found = []
    with scratch() as home:
        filesystem.make(home)
        say(f"making {files:,} files")
        with mounted(filesystem, home, home / "mnt") as root:
            make_tree(root, files)
            found.append(measured(root, f"{files:,} files made"))
        for limited in (True, False):
            name = f"{files:,} files walked {'in a memory cgroup' if limited else 'without a memory limit'}"
            say(name)
            with mounted(filesystem, home, home / "mnt") as root:
                budget = int(read_statistics(root)["memory"]["budget_bytes"])
                measure_walk(root, daemon_pid(root), budget, limited=limited)
                found.append(measured(root, name))
    return found


def show(part: Part) -> None:
    """One line."""
    kept = "kept" if part.highest_bytes <= part.promised_bytes else "BROKEN"
    click.echo(
        f"{part.name}: {size(part.highest_bytes)} resident at most; promised {size(part.promised_bytes)}"
        f" (budget {size(part.budget_bytes)}): {kept}"
    )


PARTS: Final = ("sequential", "random", "full", "churn", "large", "walk")


@click.command()
@click.option("--gigabytes", type=click.IntRange(min=1), default=20, show_default=True, help="Written in each part.")
@click.option("--files", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="Walked.")
@click.option("--churned", type=click.IntRange(min=1000), default=200_000, show_default=True, help="Made and removed.")
@click.option("-o", "options", default="memory=64M", show_default=True, metavar="OPTIONS")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Leave the other parts out.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), default=RESULTS / "memory.json")
def command(gigabytes: int, files: int, churned: int, options: str, only: tuple[str, ...], json_file: Path) -> None:
    """The highest resident size of the daemon against its promise, after each kind of work."""
    wanted = only or PARTS
    with scratch() as home:
        free = shutil.disk_usage(home).free
    if "sequential" in wanted and free < (gigabytes + 2) * GIB:
        raise click.BadParameter(f"--gigabytes {gigabytes}: only {size(free)} are free here")
    parts: list[Part] = []
    works: list[tuple[str, str, int, Callable[[Path], None]]] = [
        ("sequential", f"{gigabytes} GiB written", (gigabytes + 1) * GIB, lambda root: sequential(root, gigabytes)),
        ("random", f"{gigabytes} GiB written at random", 4 * GIB, lambda root: scattered(root, gigabytes)),
        ("full", f"{gigabytes} GiB written to a full disk", 3 * GIB, lambda root: full(root, gigabytes)),
        ("churn", f"{churned:,} files made and removed", 4 * GIB, lambda root: churn(root, churned)),
        ("large", "an empty image of 2 TiB", LARGE_IMAGE_BYTES, lambda root: None),
    ]
    for key, name, image_bytes, work in works:
        if key in wanted:
            parts.append(on_fresh_image(options, image_bytes, name, work))
    if "walk" in wanted:
        parts.extend(walk(options, files))
    result = MemoryResult(describe_machine(Path("/tmp")), options, parts)
    json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    say(f"wrote {json_file}")
    if any(part.highest_bytes > part.promised_bytes for part in parts):
        raise SystemExit(1)


if __name__ == "__main__":
    run_scenario(command)
