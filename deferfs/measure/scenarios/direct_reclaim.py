"""Direct reclaim inside of deferfs: an operation that needs memory reclaims it, and meets inodes that owe something.

Files that have not been read for days are read once, so that each owes an access time. The workload lives in a memory
cgroup that is too small for their names, so the kernel forgets them as it goes, and they become idle in the daemon.
More files are read and others looked up, which takes memory from a budget that is used up by then.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure import race, slow_disk
from deferfs.measure.cgroup import MemoryCgroup
from deferfs.measure.paced import Load
from deferfs.measure.scenario import Loop, Measure, Pass, Prepared, Scenario, Side, Surroundings
from deferfs.measure.slow_mount import SlowMount, prepared_image, slow_mount, waits_between

DIRECTORIES: Final = 20
CONTENT: Final = b"x" * 3000
UNREAD_SECONDS: Final = 3 * 86_400
"""relatime updates an access time that is older than a day."""
IMAGE_SIZE: Final = "1G"
PASS_SECONDS_MAX: Final = 300.0
NEIGHBOURS_PER_SECOND: Final = 200.0
MIB: Final = 1 << 20
SIDES: Final = (
    Side("inline", "deferfs, inline", "inline"),
    Side("deferred", "deferfs, deferred", "deferred"),
    Side("floor", "deferfs with noatime, where nothing is owed", "floor"),
)
OPTIONS: Final = {"inline": ("evict=inline",), "deferred": ("evict=deferred",), "floor": ("evict=deferred", "noatime")}
"""With nothing owed, the policies do not differ."""


class Parameters(msgspec.Struct, frozen=True):
    """`memory_mib`: the budget; 0: that of a memory cgroup of `cgroup_mib` around daemon and workload. `background`:
    whether the background reclaimer works. `files` are read, `others` looked up in the same time. `kernel_mib`: the
    memory cgroup of the workload, which bounds what the kernel remembers; 0: the kernel has all the memory there is.
    `reads_per_second`: pace of the open loop.
    """

    memory_mib: int = 8
    background: bool = True
    files: int = 6000
    others: int = 1000
    reads_per_second: float = 3000.0
    kernel_mib: int = 24
    cgroup_mib: int = 96


def file_path(root: str, number: int) -> str:
    """A file that is read."""
    return f"{root}/read{number % DIRECTORIES}/{number}"


def other_path(root: str, number: int) -> str:
    """A file that is looked up."""
    return f"{root}/stat{number % DIRECTORIES}/{number}"


def make_files(root: Path, parameters: Parameters) -> None:
    """All that is read or looked up, last read days ago."""
    for number in range(DIRECTORIES):
        for kind in ("read", "stat"):
            (root / f"{kind}{number}").mkdir()
    then = time.time() - UNREAD_SECONDS
    for path_of, count in ((file_path, parameters.files), (other_path, parameters.others)):
        for number in range(count):
            path = path_of(str(root), number)
            Path(path).write_bytes(CONTENT)
            os.utime(path, (then, then))
    (root / "hot").write_bytes(CONTENT)


def reading(root: str) -> Callable[[int], object]:
    """open, read to the end, close."""

    def read(number: int) -> None:
        descriptor = os.open(file_path(root, number), os.O_RDONLY)
        try:
            os.read(descriptor, len(CONTENT) + 1)
        finally:
            os.close(descriptor)

    return read


class Images:
    """The prepared image, and the passes on copies of it."""

    def __init__(self, image: Path, parameters: Parameters, surroundings: Surroundings) -> None:
        self._image = image
        self._parameters = parameters
        self._surroundings = surroundings

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """One pass: the loads, then an unmount that pays what is owed."""
        with contextlib.ExitStack() as stack:
            cgroup = self._enter_cgroup(stack)
            mount = stack.enter_context(
                slow_mount(self._image, self._options(side), self._surroundings, self._daemon_cgroup(cgroup))
            )
            before = mount.statistics()
            disk_before = mount.disk.counters()
            used = [0.0]
            with race.ready(*self._loads(mount.root, loop), self._surroundings.own, cgroup) as loads:
                raced = loads.run(
                    PASS_SECONDS_MAX, lambda: used.append(mount.statistics()["memory"]["used_bytes"])
                )
            after = mount.statistics()
            owed_seconds = mount.close()
            counters = mount.disk.counters()
            memory, gc = after["memory"], after["gc"]
            return Pass(
                side=side.name,
                loop=loop,
                outcome=raced.outcome,
                seconds=raced.seconds + owed_seconds,
                series=raced.series,
                counters={
                    "owed_seconds": owed_seconds,
                    "budget_bytes": memory["budget_bytes"],
                    "used_highest_bytes": max(*used, memory["used_bytes"]),
                    "resident_highest_bytes": mount.resident_highest_bytes,
                    "promised_bytes": memory["promised_bytes"],
                    "direct_reclaims_total": memory["direct_reclaims_total"] - before["memory"]["direct_reclaims_total"],
                    "inactivated_total": gc["inactivated_total"] - before["gc"]["inactivated_total"],
                    "idle_at_end": after["inodes"]["idle"], "queued_at_end": gc["queued"],
                    "written_bytes": counters["write_bytes"] - disk_before["write_bytes"],
                    "read_bytes": counters["read_bytes"] - disk_before["read_bytes"],
                    "flushes_total": counters["flushes"] - disk_before["flushes"],
                    "load_seconds": raced.seconds,
                },
                waits=waits_between(before, after),
            )

    def _enter_cgroup(self, stack):
        hierarchy = self._surroundings.hierarchy
        mib = self._parameters.kernel_mib if self._parameters.memory_mib else self._parameters.cgroup_mib
        if hierarchy is None or not mib:
            return None
        return stack.enter_context(MemoryCgroup(hierarchy, f"deferfs-bench-{os.getpid()}", mib * MIB))

    def _daemon_cgroup(self, cgroup):
        return None if self._parameters.memory_mib else cgroup

    def _options(self, side: Side) -> list[str]:
        options = [*OPTIONS[side.name], f"background_reclaim={'on' if self._parameters.background else 'off'}"]
        if self._parameters.memory_mib:
            options.append(f"memory={self._parameters.memory_mib}M")
        return options

    def _loads(self, directory: Path, loop: Loop) -> tuple[list[Load], list[Load]]:
        parameters, root = self._parameters, str(directory)
        pace = parameters.reads_per_second if loop == "open" else 0.0
        descriptor = os.open(directory / "hot", os.O_RDONLY)

        main = [
            Load("read", reading(root), count=parameters.files, per_second=pace),
            Load(
                "stat",
                lambda number: os.stat(other_path(root, number)),
                count=parameters.others,
                per_second=pace * parameters.others / parameters.files,
            ),
        ]
        os.close(descriptor)
        def neighbour(number): os.close(os.open(f"{root}/hot", os.O_RDONLY))
        return main, [Load("neighbour", neighbour, per_second=NEIGHBOURS_PER_SECOND, first=lambda: neighbour(0))]


class DirectReclaim:
    name = "direct-reclaim"
    mechanism = ""
    parameters = Parameters
    loops = ("open", "closed")
    pairs = 10
    def sides(self, parameters): return SIDES
    @contextlib.contextmanager
    def prepared(self, parameters, surroundings):
        image = surroundings.scratch / "prepared.img"
        with prepared_image(image, IMAGE_SIZE) as root:
            make_files(root, parameters)
        yield Images(image, parameters, surroundings)
    def sentences(self, passes, parameters): return []

SCENARIO = DirectReclaim()
