"""Direct reclaim inside of deferfs: an operation that needs memory reclaims it, and meets inodes that owe something.

Files that have not been read for days are read once, so that each owes an access time. The budget does not hold all of
them: the daemon asks the kernel to forget some (or the kernel does so for want of memory of its own), they become idle,
and memory is to be had only by writing what they owe.

- *closed*: one process reads files, another looks others up, each one after the other; then all that is owed is paid:
  the time of all.
- *open*: a process reads files one after the other, as fast as it can; beside it others are read and looked up at a
  fixed pace, and so is a neighbour, which opens a file that is open already, for which no memory is needed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from deferfs.measure import race, slow_disk
from deferfs.measure.account import Account
from deferfs.measure.cgroup import MemoryCgroup, find_hierarchy
from deferfs.measure.paced import Load
from deferfs.measure.scenario import Loop, Measure, Pass, Prepared, Scenario, Side, Surroundings
from deferfs.measure.slow_mount import prepared_image, slow_mount

DIRECTORIES: Final = 20
CONTENT: Final = b"x" * 3000
UNREAD_SECONDS: Final = 3 * 86_400
"""relatime updates an access time that is older than a day."""
IMAGE_SIZE: Final = "2G"
FILES_PER_MIB: Final = 2500
"""Of the budget: their in-core inodes take three quarters of it."""
PASS_SECONDS_MAX: Final = 300.0
READS_PER_SECOND: Final = 300.0
LOOKS_PER_SECOND: Final = 600.0
KERNEL_MIB: Final = 12
"""A memory cgroup for the workload in which the kernel keeps forgetting, where deferfs does not ask it to."""
NEIGHBOURS_PER_SECOND: Final = 200.0
MIB: Final = 1 << 20
READ_WORDS: Final = "an operation that needed memory (open, read and close of a file)"
SIDES: Final = (
    Side("inline", "deferfs, inline", "inline"),
    Side("deferred", "deferfs, deferred", "deferred"),
    Side("floor", "deferfs with noatime, where nothing is owed", "floor"),
)
ROLE_WORDS: Final = {"inline": "inline", "deferred": "deferred", "floor": "with nothing owed"}
OPTIONS: Final = {"inline": ("evict=inline",), "deferred": ("evict=deferred",), "floor": ("evict=deferred", "noatime")}
"""With nothing owed, the policies do not differ."""


class Parameters(msgspec.Struct, frozen=True):
    """`memory_mib`: the budget; 0: that of a memory cgroup of `cgroup_mib` around daemon and workload. `background`:
    whether the background reclaimer works; without it only `kernel_mib`, the memory cgroup of the workload, makes the
    kernel forget (0: there is none). `files` are read by the load, up to `others` are read and looked up beside it.
    """

    memory_mib: int = 4
    background: bool = True
    files: int = 10_000
    others: int = 2_000
    kernel_mib: int = 0
    cgroup_mib: int = 96


def file_path(root: str, number: int) -> str:
    """A file that the load reads."""
    return f"{root}/files{number % DIRECTORIES}/{number}"


def other_path(root: str, kind: str, number: int) -> str:
    """A file that is read (`read`) or looked up (`stat`) beside it."""
    return f"{root}/{kind}{number % DIRECTORIES}/{number}"


def make_files(root: Path, parameters: Parameters) -> None:
    """All that is read or looked up, last read days ago."""
    for kind in ("files", "read", "stat"):
        for number in range(DIRECTORIES):
            (root / f"{kind}{number}").mkdir()
    then = time.time() - UNREAD_SECONDS
    for kind, count in (("files", parameters.files), ("read", parameters.others), ("stat", parameters.others)):
        for number in range(count):
            path = other_path(str(root), kind, number)
            Path(path).write_bytes(CONTENT)
            os.utime(path, (then, then))
    (root / "hot").write_bytes(CONTENT)


def read(path: str) -> None:
    """open(2), read(2) to the end, close(2)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.read(descriptor, len(CONTENT) + 1)
    finally:
        os.close(descriptor)


def warm(root: str) -> None:
    """Have the daemon read each directory, by a look-up in vain: no pass begins with a burst of cold ones."""
    for kind in ("files", "read", "stat"):
        for number in range(DIRECTORIES):
            with contextlib.suppress(FileNotFoundError):
                os.stat(other_path(root, kind, number) + ".none")


class Files:
    """The operations on the filesystem at `root`."""

    def __init__(self, root: Path, parameters: Parameters) -> None:
        self._root = str(root)
        self._parameters = parameters

    def closed(self) -> tuple[list[Load], list[Load]]:
        """Reads and look-ups, by a process each."""
        files, others = self._parameters.files, self._parameters.others
        return [self._load(files), Load("stat", self._look, count=others)], []

    def open(self) -> tuple[list[Load], list[Load]]:
        """The load, and what is beside it until it ends."""
        return [self._load(self._parameters.files)], [
            Load("read", self._read, per_second=READS_PER_SECOND),
            Load("stat", self._look, per_second=LOOKS_PER_SECOND),
            Load("neighbour", self._open_hot, per_second=NEIGHBOURS_PER_SECOND, first=lambda: self._open_hot(0)),
        ]

    def _load(self, count: int) -> Load:
        return Load("load", lambda number: read(file_path(self._root, number)), count=count, first=self._warm)

    def _warm(self) -> None:
        warm(self._root)

    # A pass that takes so long that all have had their turn goes round again.
    def _read(self, number: int) -> None:
        read(other_path(self._root, "read", number % self._parameters.others))

    def _look(self, number: int) -> None:
        os.stat(other_path(self._root, "stat", number % self._parameters.others))

    def _open_hot(self, _: int) -> None:
        os.close(os.open(f"{self._root}/hot", os.O_RDONLY))


class Passes:
    """Passes on copies of the prepared image."""

    def __init__(self, image: Path, parameters: Parameters, surroundings: Surroundings) -> None:
        self._image = image
        self._parameters = parameters
        self._surroundings = surroundings

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """As `Prepared.perform`."""
        surroundings, parameters = self._surroundings, self._parameters
        with contextlib.ExitStack() as stack:
            cgroup = self._enter_cgroup(stack)
            inside = None if parameters.memory_mib else cgroup
            mount = stack.enter_context(slow_mount(self._image, self._options(side), surroundings, inside))
            hot = os.open(mount.root / "hot", os.O_RDONLY)
            try:
                account = Account(mount)
                files = Files(mount.root, parameters)
                main, beside = files.open() if loop == "open" else files.closed()
                with race.ready(main, beside, surroundings.own, cgroup) as loads:
                    raced = loads.run(PASS_SECONDS_MAX, account.watch)
            finally:
                os.close(hot)
            account.settle()
            return Pass(
                side=side.name,
                loop=loop,
                outcome=raced.outcome,
                seconds=raced.seconds + account.owed_seconds,
                series=raced.series,
                counters={"load_seconds": raced.seconds, **account.counters()},
                waits=account.waits(),
            )

    def _enter_cgroup(self, stack: contextlib.ExitStack) -> MemoryCgroup | None:
        parameters, hierarchy = self._parameters, self._surroundings.hierarchy
        mib = parameters.kernel_mib if parameters.memory_mib else parameters.cgroup_mib
        if hierarchy is None or not mib:
            return None
        return stack.enter_context(MemoryCgroup(hierarchy, f"deferfs-bench-{os.getpid()}", mib * MIB))

    def _options(self, side: Side) -> list[str]:
        options = [*OPTIONS[side.name], f"background_reclaim={'on' if self._parameters.background else 'off'}"]
        if self._parameters.memory_mib:
            options.append(f"memory={self._parameters.memory_mib}M")
        return options


class DirectReclaim:
    """The scenario: see the head of this module."""

    name = "direct-reclaim"
    mechanism = (
        "An operation that needs memory from deferfs's own budget waits for what inodes owe: inline for their"
        " inactivation, deferred for the memory that inactivations take."
    )
    parameters: type[msgspec.Struct] = Parameters
    measures: tuple[Measure, ...] = (
        Measure("read", "p50", READ_WORDS),
        Measure("read", "p99", READ_WORDS),
        Measure("read", "max", READ_WORDS),
        Measure("load", "max", "the same by a process that reads as fast as it can, the longest"),
        Measure("stat", "p99", "a look-up"),
        Measure("stat", "max", "a look-up"),
        Measure("neighbour", "p99", "a neighbour that needed no memory (open and close of a hot file)"),
        Measure("neighbour", "max", "a neighbour that needed no memory (open and close of a hot file)"),
        Measure("seconds", "value", "the whole work until nothing was owed, seconds", "closed"),
        Measure("load", "max", "an operation that needed memory, by the one process that reads", "closed"),
        Measure("owed_seconds", "value", "from the end of the load until nothing was owed, seconds", "closed"),
        Measure("disk_written_bytes", "value", "bytes written to the disk until nothing was owed", "closed"),
    )
    loops: tuple[Loop, ...] = ("open", "closed")
    pairs = 6
    disk = "read=2,write=2,flush=5"
    """2 ms a request, 5 ms a flush, where the command line names no other."""

    def sweep(self, parameters: Parameters) -> Sequence[Parameters]:
        """Budgets of 8, 16 and 64 MiB with four times the files that fit, and that of a cgroup, with a background
        reclaimer; and 8 and 16 MiB without one.
        """

        def point(memory_mib: int, budget_mib: int, kernel_mib: int = 0) -> Parameters:
            return Parameters(
                memory_mib=memory_mib,
                background=not kernel_mib,
                files=FILES_PER_MIB * budget_mib,
                kernel_mib=kernel_mib,
                cgroup_mib=parameters.cgroup_mib,
            )

        budget_of_cgroup = min(parameters.cgroup_mib // 2, parameters.cgroup_mib - 64)
        return [
            *(point(mib, mib) for mib in (8, 16, 64)),
            point(0, budget_of_cgroup),
            *(point(mib, mib, kernel_mib=KERNEL_MIB) for mib in (8, 16)),
        ]

    def sides(self, parameters: Parameters) -> Sequence[Side]:
        """Always the same three."""
        return SIDES

    def missing(self, side: Side, parameters: Parameters) -> str:
        """As `Scenario.missing`."""
        if (not parameters.memory_mib or parameters.kernel_mib) and find_hierarchy() is None:
            return "these parameters want a memory cgroup, and there is no memory controller"
        return slow_disk.missing()

    @contextlib.contextmanager
    def prepared(self, parameters: Parameters, surroundings: Surroundings) -> Iterator[Prepared]:
        """As `Scenario.prepared`."""
        image = surroundings.scratch / "direct-reclaim.img"
        surroundings.tell(f"making {parameters.files + 2 * parameters.others:,} files")
        try:
            with prepared_image(image, IMAGE_SIZE) as root:
                make_files(root, parameters)
            yield Passes(image, parameters, surroundings)
        finally:
            image.unlink(missing_ok=True)

    def sentences(self, passes: Sequence[Pass], parameters: Parameters) -> list[str]:
        """How often and how long a pass waited for memory, and how far its budget was overrun."""
        found = {side: [one for one in passes if one.side == side.name and one.loop == "open"] for side in SIDES}
        told = {side: ours for side, ours in found.items() if ours}
        if not told:
            return []
        waits = "; ".join(f"{_memory_waits(ours)} {ROLE_WORDS[side.role]}" for side, ours in told.items())
        used = "; ".join(f"{_used_share(ours):.0%} {ROLE_WORDS[side.role]}" for side, ours in told.items())
        return [
            f"requests waited for memory, in the median pass with a load: {waits}",
            f"of the budget, up to this much was in use: {used}",
        ]


def _memory_waits(passes: Sequence[Pass]) -> str:
    waits = [one.waits["memory"] for one in passes if "memory" in one.waits]
    together = median([wait.total_ns for wait in waits] + [0] * (len(passes) - len(waits)))
    count = median([wait.count for wait in waits] + [0] * (len(passes) - len(waits)))
    return f"{count:.0f} times, {together / 1e9:.1f} s together"


def _used_share(passes: Sequence[Pass]) -> float:
    return max(one.counters["used_highest_bytes"] / one.counters["budget_bytes"] for one in passes)


SCENARIO: Scenario = DirectReclaim()
