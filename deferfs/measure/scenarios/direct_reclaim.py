"""Direct reclaim inside deferfs: an operation that needs memory reclaims it, and finds inodes that owe something.

Files that have not been read since they were written are read once, so that each owes an access time. That nearly
fills the budget, on a disk that is still fast, before the clock starts. Then further files are read and looked up,
which needs memory: the daemon asks the kernel to forget some (or the kernel does so because it is short of memory
itself), they become idle, and memory can be freed only by writing what they owe.

- *closed*: one process reads files, another looks others up, each sequentially; then all cleanups: the total time.
- *open*: a process reads files sequentially, as fast as it can; meanwhile others are read and looked up at a fixed
  pace, and a neighbour opens a file that is open already, which needs no memory.

With `orphans` another process exits as the clock starts: it held the last references to that many deleted files of
`orphan_extents` extents each, cleanup that no sharing of table blocks makes cheaper. The floor has no such process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from deferfs.measure import slow_disk
from deferfs.measure.host.cgroup import find_hierarchy
from deferfs.measure.mounts.loaded_pass import Jobs, loaded_pass, memory_cgroup
from deferfs.measure.mounts.slow_mount import prepared_image, slow_mount
from deferfs.measure.scenario import Loop, Measure, Pass, Prepared, Scenario, Side, Surroundings
from deferfs.measure.work.exiting import Exit
from deferfs.measure.work.paced import Load
from deferfs.measure.work.scattered import data_bytes, make_file

DIRECTORIES: Final = 20
CONTENT: Final = b"x" * 3000
LINK_TARGET: Final = "nowhere"
GIB: Final = 1 << 30
OWING_PER_MIB: Final = 2125
"""Files per MiB of the budget: their in-core inodes take two thirds of it, and with the daemon's other needs nearly the
nine tenths at which background reclaim starts."""
FILES_PER_MIB: Final = 375
SWEPT_ORPHANS: Final = 100
OWERS: Final = 2
"""Threads that make the files, and that read those that are to owe a time: more do not make the daemon faster."""
READS_PER_SECOND: Final = 300.0
LOOKS_PER_SECOND: Final = 600.0
KERNEL_MIB: Final = 12
"""A memory cgroup for the workload in which the kernel keeps forgetting, without a request by deferfs."""
NEIGHBOURS_PER_SECOND: Final = 200.0
LOAD_WORDS: Final = "an operation that needed memory (open, read and close of a file)"
READ_WORDS: Final = "the same at a fixed pace beside others that go as fast as they can"
CLOSED_WORDS: Final = "an operation that needed memory, by the one process that reads"
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
    kernel forget (0: there is none). `owing` files are read before the clock starts (with `owing_links` symbolic links,
    which owe the same and are read in half as many requests), `files` by the load, up to `others` are read and looked
    up beside it. `orphans` deleted files of `orphan_extents` extents are closed when it starts.
    """

    memory_mib: int = 4
    background: bool = True
    owing: int = 8_500
    files: int = 1_000
    others: int = 2_000
    kernel_mib: int = 0
    cgroup_mib: int = 96
    orphans: int = 0
    orphan_extents: int = 1000
    owing_links: bool = False


def file_path(root: str, number: int) -> str:
    """A file that is read beforehand (up to `owing`) or by the load (the rest)."""
    return f"{root}/files{number % DIRECTORIES}/{number}"


def other_path(root: str, kind: str, number: int) -> str:
    """A file that is read (`read`) or looked up (`stat`) beside it."""
    return f"{root}/{kind}{number % DIRECTORIES}/{number}"


def make_files(root: Path, parameters: Parameters) -> None:
    """All that is read or looked up: relatime updates an access time that is not after the last change."""
    for kind in ("files", "read", "stat"):
        for number in range(DIRECTORIES):
            (root / f"{kind}{number}").mkdir()
    counts = {"files": parameters.owing + parameters.files, "read": parameters.others, "stat": parameters.others}

    links = parameters.owing if parameters.owing_links else 0

    def make(kind: str, number: int) -> None:
        path = other_path(str(root), kind, number)
        if kind == "files" and number < links:
            os.symlink(LINK_TARGET, path)
        else:
            Path(path).write_bytes(CONTENT)

    with ThreadPoolExecutor(OWERS) as makers:
        for kind, count in counts.items():
            list(makers.map(partial(make, kind), range(count)))
    (root / "hot").write_bytes(CONTENT)
    for path in orphan_paths(root, parameters):
        make_file(path, parameters.orphan_extents)


def orphan_paths(root: Path, parameters: Parameters) -> list[str]:
    """The files that a process deletes, and holds until it exits."""
    return [f"{root}/orphan{number}" for number in range(parameters.orphans)]


def read(path: str) -> None:
    """open(2), read(2) to the end, close(2)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.read(descriptor, len(CONTENT) + 1)
    finally:
        os.close(descriptor)


def warm(root: str) -> None:
    """Look up a missing name in each directory, so that no pass begins with a burst of cold directory reads."""
    for kind in ("files", "read", "stat"):
        for number in range(DIRECTORIES):
            with contextlib.suppress(FileNotFoundError):
                os.stat(other_path(root, kind, number) + ".none")


class Files:
    """The operations on the filesystem at `root`. `orphans`: those that a process holds until it exits."""

    def __init__(self, root: Path, parameters: Parameters, orphans: Sequence[str] = ()) -> None:
        self._root = str(root)
        self._parameters = parameters
        self._exits = [Exit(orphans)] if orphans else []

    def closed(self) -> Jobs:
        """Reads and look-ups, by a process each."""
        return Jobs([self._load(), Load("stat", self._look, count=self._parameters.others), *self._exits])

    def open(self) -> Jobs:
        """The load, and what is beside it until it ends."""
        return Jobs(
            [self._load(), *self._exits],
            [
                Load("read", self._read, per_second=READS_PER_SECOND),
                Load("stat", self._look, per_second=LOOKS_PER_SECOND),
                Load("neighbour", self._open_hot, per_second=NEIGHBOURS_PER_SECOND, first=lambda: self._open_hot(0)),
            ],
        )

    def _load(self) -> Load:
        owing = self._parameters.owing
        return Load(
            "load",
            lambda number: read(file_path(self._root, owing + number)),
            count=self._parameters.files,
            first=self._owe,
        )

    def _owe(self) -> None:
        warm(self._root)
        with ThreadPoolExecutor(OWERS) as owers:
            list(owers.map(self._owe_from, range(OWERS)))

    def _owe_from(self, first: int) -> None:
        owe: Callable[[str], object] = os.readlink if self._parameters.owing_links else read
        for number in range(first, self._parameters.owing, OWERS):  # no list: the memory cgroup may be small
            owe(file_path(self._root, number))

    # A pass that takes so long that all have had their turn goes round again.
    def _read(self, number: int) -> None:
        read(other_path(self._root, "read", number % self._parameters.others))

    def _look(self, number: int) -> None:
        os.stat(other_path(self._root, "stat", number % self._parameters.others))

    def _open_hot(self, _: int) -> None:
        os.close(os.open(f"{self._root}/hot", os.O_RDONLY))


class Passes:
    """Passes on copies of the prepared image."""

    def __init__(self, image: Callable[[], Path], parameters: Parameters, surroundings: Surroundings) -> None:
        self._image = image
        self.finish_preparing = image
        self._parameters = parameters
        self._surroundings = surroundings

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """As `Prepared.perform`."""
        surroundings, parameters = self._surroundings, self._parameters
        mib = parameters.kernel_mib if parameters.memory_mib else parameters.cgroup_mib
        with memory_cgroup(surroundings, mib) as cgroup:
            inside = None if parameters.memory_mib else cgroup
            with slow_mount(self._image(), self._options(side), surroundings, inside) as mount:
                mount.disk.set_preset("none")
                orphans = [] if side.role == "floor" else orphan_paths(mount.root, parameters)
                files = Files(mount.root, parameters, orphans)
                return loaded_pass(
                    side,
                    loop,
                    mount,
                    files.open() if loop == "open" else files.closed(),
                    surroundings,
                    cgroup=cgroup,
                    hot=mount.root / "hot",
                    ready=lambda: mount.disk.set_preset(surroundings.disk),
                )

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
        Measure("load", "p50", LOAD_WORDS),
        Measure("load", "p99", LOAD_WORDS),
        Measure("load", "max", LOAD_WORDS),
        Measure("read", "p50", READ_WORDS),
        Measure("read", "max", READ_WORDS),
        Measure("stat", "p50", "a look-up"),
        Measure("stat", "max", "a look-up"),
        Measure("neighbour", "p50", "a neighbour that needed no memory (open and close of a hot file)"),
        Measure("neighbour", "max", "a neighbour that needed no memory (open and close of a hot file)"),
        Measure("seconds", "value", "the whole work until nothing was owed, seconds", "closed"),
        Measure("load", "p50", CLOSED_WORDS, "closed"),
        Measure("load", "p99", CLOSED_WORDS, "closed"),
        Measure("load", "p99.9", CLOSED_WORDS, "closed"),
        Measure("load", "max", CLOSED_WORDS, "closed"),
        Measure("owed_seconds", "value", "from the end of the load until nothing was owed, seconds", "closed"),
        Measure("disk_written_bytes", "value", "bytes written to the disk until nothing was owed", "closed"),
    )
    loops: tuple[Loop, ...] = ("open", "closed")
    pairs = 10
    disk = "read=2,write=2,flush=5"
    """2 ms a request, 5 ms a flush, where the command line names no other."""
    swept_disks = ("none", "ssd", "network", "hdd")

    def sweep(self, parameters: Parameters) -> Sequence[Parameters]:
        """Budgets of 8, 16 and 64 MiB with as many files for each MiB, and that of a cgroup, with a background
        reclaimer; 8 and 16 MiB without one; and 8 MiB with a process that exits.
        """

        def point(memory_mib: int, budget_mib: int, kernel_mib: int = 0) -> Parameters:
            return Parameters(
                memory_mib=memory_mib,
                background=not kernel_mib,
                owing=OWING_PER_MIB * budget_mib,
                files=FILES_PER_MIB * budget_mib,
                kernel_mib=kernel_mib,
                cgroup_mib=parameters.cgroup_mib,
            )

        budget_of_cgroup = min(parameters.cgroup_mib // 2, parameters.cgroup_mib - 64)
        return [
            *(point(mib, mib) for mib in (8, 16, 64)),
            point(0, budget_of_cgroup),
            *(point(mib, mib, kernel_mib=KERNEL_MIB) for mib in (8, 16)),
            msgspec.structs.replace(point(8, 8), orphans=SWEPT_ORPHANS),
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
        surroundings.tell(f"making {parameters.owing + parameters.files + 2 * parameters.others:,} files")
        gib = 2 + data_bytes(2 * parameters.orphans, parameters.orphan_extents) // GIB
        with prepared_image(surroundings, lambda root: make_files(root, parameters), f"{gib}G") as image:
            yield Passes(image, parameters, surroundings)

    def sentences(self, passes: Sequence[Pass], parameters: Parameters) -> list[str]:
        """How often and how long a pass waited for memory, and how far its budget was overrun."""
        found = {side: [one for one in passes if one.side == side.name and one.loop == "open"] for side in SIDES}
        told = {side: ours for side, ours in found.items() if ours}
        if not told:
            return []
        waits = "; ".join(f"{_memory_waits(ours)} {ROLE_WORDS[side.role]}" for side, ours in told.items())
        used = "; ".join(f"{_used_share(ours):.0%} {ROLE_WORDS[side.role]}" for side, ours in told.items())
        beside = [_exit_words(parameters)] if parameters.orphans else []
        return [
            *beside,
            f"requests waited for memory, in the median pass with a load: {waits}",
            f"of the budget, up to this much was in use: {used}",
        ]


def _exit_words(parameters: Parameters) -> str:
    return (
        f"meanwhile, except with nothing owed, a process exited that held the last references to {parameters.orphans}"
        f" deleted files of {parameters.orphan_extents:,} extents each"
    )


def _memory_waits(passes: Sequence[Pass]) -> str:
    waits = [one.waits["memory"] for one in passes if "memory" in one.waits]
    together = median([wait.total_ns for wait in waits] + [0] * (len(passes) - len(waits)))
    count = median([wait.count for wait in waits] + [0] * (len(passes) - len(waits)))
    return f"{count:.0f} times, {together / 1e9:.1f} s together"


def _used_share(passes: Sequence[Pass]) -> float:
    return max(one.counters["used_highest_bytes"] / one.counters["budget_bytes"] for one in passes)


SCENARIO: Scenario = DirectReclaim()
