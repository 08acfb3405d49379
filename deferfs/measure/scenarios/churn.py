"""Churn: files come and go in a tree that no cache holds, and operations at a fixed pace measure the effect on others.

A workload creates, writes, looks up, opens again and deletes files, many of them of many extents and half of them while
they are open (`deferfs.measure.work.workload`), inside a memory cgroup too small for the names of the tree, so that the
kernel keeps forgetting inodes. It is a mixture: see `direct-reclaim` and `dispatch` for one mechanism each.

- *closed*: the workload alone, then all cleanups: the total time.
- *open*: concurrent probes create, look up, write, fsync, and touch fresh memory, at a fixed pace (`probes`).

The floor is the same work with inodegc stopped until the clock has stopped. With `target` the scenario works in a new
directory of an existing mount; a filesystem other than deferfs has no inodegc to stop, and there the floor is the same
work on files with a second name, whose deletion leaves nothing to clean up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from deferfs.errors import UsageError
from deferfs.limits import MIB, RESIDENT_BASE_BYTES
from deferfs.measure import slow_disk
from deferfs.measure.host.cgroup import MemoryCgroup
from deferfs.measure.host.machine import is_deferfs
from deferfs.measure.host.tracing import ReclaimTrace
from deferfs.measure.mounts.account import Accountable
from deferfs.measure.mounts.loaded_pass import Jobs, loaded_pass, memory_cgroup
from deferfs.measure.mounts.slow_mount import prepared_image, slow_mount
from deferfs.measure.mounts.standing_mount import StandingMount, temporary_directory
from deferfs.measure.scenario import Loop, Measure, Pass, Prepared, Scenario, Series, Side, Surroundings
from deferfs.measure.work.paced import Measured
from deferfs.measure.work.probes import Probe, standard_probes
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.tree import make_tree
from deferfs.measure.work.victims import make_victims
from deferfs.measure.work.workload import VICTIMS_PER_ROUND, Churn, Work

INLINE: Final = Side("inline", "deferfs, inline", "inline")
DEFERRED: Final = Side("deferred", "deferfs, deferred", "deferred")
FLOOR: Final = Side("floor", "deferfs with inodegc stopped until the clock has stopped", "floor")
AS_MOUNTED: Final = Side("as-mounted", "the filesystem as it is mounted", "kernel")
KEPT: Final = Side("kept", "the same where each file has a second name", "floor")


class Parameters(msgspec.Struct, frozen=True):
    """`rounds` of the workload on a tree of `tree_files`. `memory_mib`: the daemon's budget. `kernel_mib`: the memory
    cgroup of workload and probes; 0: none. `daemon_inside`: the daemon is in it, too, as in a container that serves its
    own filesystem, and it is larger by the daemon's memory. `target`: a directory of an existing mount, instead of an
    image.
    """

    rounds: int = 20
    tree_files: int = 16_000
    memory_mib: int = 16
    kernel_mib: int = 16
    daemon_inside: bool = False
    target: str = ""


class Workload:
    """The churn, as a load."""

    name = "workload"

    def __init__(self, root: Path, work: Work) -> None:
        self._churn = Churn(root, work)

    def prepare(self) -> None:
        """Fill the cgroup with the names of the tree."""
        self._churn.prepare()

    def measure(self, stop: StopFlag) -> Measured:
        """All rounds. Operations are reported as `churn-KIND`."""
        result = self._churn.measure(stop)
        return Measured({f"churn-{kind}": Series(one, one.count) for kind, one in result.kinds.items()})


class Beside:
    """A probe as a load: its latencies count from when each operation was due."""

    def __init__(self, probe: Probe) -> None:
        self.name = probe.name
        self._probe = probe

    def prepare(self) -> None:
        """As the probe does."""
        self._probe.prepare()

    def measure(self, stop: StopFlag) -> Measured:
        """Until it is stopped."""
        result = self._probe.measure(stop)
        return Measured({self.name: Series(result.response, result.due, result.failed)})


def loads(root: Path, loop: Loop, parameters: Parameters, seed: int, *, second_names: bool = False) -> Jobs:
    """The workload, and the jobs beside it."""
    work = Work(
        rounds=parameters.rounds,
        seconds=0.0,
        tree_files=parameters.tree_files,
        victims=victims(parameters),
        seed=seed,
        second_names=second_names,
    )
    probes = standard_probes(root, parameters.tree_files, seed) if loop == "open" else []
    return Jobs([Workload(root, work)], [Beside(probe) for probe in probes])


def victims(parameters: Parameters) -> int:
    """Number of files made for the workload to delete."""
    return VICTIMS_PER_ROUND * parameters.rounds


class Passes:
    """Shared by passes on an image and in a directory."""

    def __init__(self, parameters: Parameters, surroundings: Surroundings) -> None:
        self.parameters = parameters
        self.surroundings = surroundings

    def passed(
        self,
        side: Side,
        loop: Loop,
        mount: Accountable,
        root: Path,
        cgroup: MemoryCgroup | None,
        ready: Callable[[], object] = lambda: None,
    ) -> Pass:
        """Workload and probes, in a memory cgroup, then all cleanups. `ready` is called when all are prepared."""
        jobs = loads(root, loop, self.parameters, self.surroundings.seed, second_names=side == KEPT)
        with ReclaimTrace(f"deferfs-bench-{os.getpid()}") as trace:
            return loaded_pass(
                side, loop, mount, jobs, self.surroundings, cgroup=cgroup, trace=trace if cgroup else None, ready=ready
            )


class ImagePasses(Passes):
    """Passes on copies of a prepared image."""

    def __init__(self, image: Callable[[], Path], parameters: Parameters, surroundings: Surroundings) -> None:
        super().__init__(parameters, surroundings)
        self._image = image
        self.finish_preparing = image

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """As `Prepared.perform`. The disk is fast during the walk of the tree: the caches are the same afterwards."""
        evict = "inline" if side == INLINE else "deferred"
        options = [f"evict={evict}", f"memory={self.parameters.memory_mib}M"]
        mib = self.parameters.kernel_mib
        inside = self.parameters.daemon_inside and mib
        if inside:
            mib += self.parameters.memory_mib + RESIDENT_BASE_BYTES // MIB
        with (
            memory_cgroup(self.surroundings, mib) as cgroup,
            slow_mount(self._image(), options, self.surroundings, cgroup if inside else None) as mount,
        ):
            if side == FLOOR:
                mount.set("gc", "stop")
            mount.disk.set_preset("none")
            return self.passed(
                side, loop, mount, mount.root, cgroup, lambda: mount.disk.set_preset(self.surroundings.disk)
            )


class DirectoryPasses(Passes):
    """Passes in a directory of a mounted filesystem, with the tree in it."""

    def __init__(self, root: Path, parameters: Parameters, surroundings: Surroundings) -> None:
        super().__init__(parameters, surroundings)
        self._root = root

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """As `Prepared.perform`: victims are made again, and everything but the tree is removed."""
        with (
            memory_cgroup(self.surroundings, self.parameters.kernel_mib) as cgroup,
            StandingMount(self._root, self.surroundings, victims(self.parameters)) as mount,
        ):
            if side == KEPT:
                mount.name_victims_twice()
            if side in (INLINE, DEFERRED, FLOOR):
                mount.set("evict", "inline" if side == INLINE else "deferred")
            if side == FLOOR:
                mount.set("gc", "stop")
            return self.passed(side, loop, mount, self._root, cgroup)


class ChurnScenario:
    """The scenario: see the head of this module."""

    name = "churn"
    mechanism = "A mixture of work on a tree that no cache holds; whatever an eviction holds up shows in the probes."
    parameters: type[msgspec.Struct] = Parameters
    measures: tuple[Measure, ...] = (
        Measure("create", "p99", "a create"),
        Measure("create", "max", "a create"),
        Measure("stat", "p99", "a look-up"),
        Measure("stat", "max", "a look-up"),
        Measure("write", "p99", "a write of 4 KiB"),
        Measure("fsync", "p50", "an fsync"),
        Measure("memory", "p99", "touching 256 KiB of fresh memory"),
        Measure("memory", "max", "touching 256 KiB of fresh memory"),
        Measure("load_seconds", "value", "the workload, seconds", "closed"),
        Measure("seconds", "value", "the workload until nothing was owed, seconds", "closed"),
        Measure("owed_seconds", "value", "from the end of the workload until nothing was owed, seconds", "closed"),
    )
    loops: tuple[Loop, ...] = ("open", "closed")
    pairs = 5

    def sweep(self, parameters: Parameters) -> Sequence[Parameters]:
        """One long pass."""
        return [msgspec.structs.replace(parameters, rounds=160)]

    def sides(self, parameters: Parameters) -> Sequence[Side]:
        """For other filesystems than deferfs: the filesystem itself and its floor."""
        if parameters.target and not is_deferfs(Path(parameters.target)):
            return AS_MOUNTED, KEPT
        return INLINE, DEFERRED, FLOOR

    def missing(self, side: Side, parameters: Parameters) -> str:
        """As `Scenario.missing`."""
        return "" if parameters.target else slow_disk.missing()

    @contextlib.contextmanager
    def prepared(self, parameters: Parameters, surroundings: Surroundings) -> Iterator[Prepared]:
        """As `Scenario.prepared`."""
        surroundings.tell(f"making {parameters.tree_files:,} cold files and {victims(parameters):,} to delete")
        if parameters.target:
            if parameters.daemon_inside:
                raise UsageError("daemon_inside: the daemon of a filesystem that is mounted already is not moved")
            with temporary_directory(Path(parameters.target)) as root:
                make_tree(root, parameters.tree_files)
                yield DirectoryPasses(root, parameters, surroundings)
            return

        def fill(root: Path) -> None:
            make_tree(root, parameters.tree_files)
            make_victims(root, victims(parameters))

        with prepared_image(surroundings, fill) as image:
            yield ImagePasses(image, parameters, surroundings)

    def sentences(self, passes: Sequence[Pass], parameters: Parameters) -> list[str]:
        """None: the operations of the workload are in the JSON; the sentences are those of the measures."""
        return []


SCENARIO: Scenario = ChurnScenario()
