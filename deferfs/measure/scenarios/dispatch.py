"""Few dispatchers: a FUSE daemon has some handlers of requests, and an inline evict blocks one of them while it waits.

A process closes deleted files, one after the other, at a pace. The kernel sends a RELEASE and a FORGET for each and
waits for neither. Inline, the handler of one waits for the disk until the file is cleaned up, which needs a cold block;
when files arrive faster than the handlers can wait, requests of other processes find no free handler. Deferred, a
handler only queues.

- *closed*: the files are closed while a hot file is opened and closed, sequentially; then all cleanups: the total time.
- *open*: files are closed at a fixed pace; meanwhile a hot file is opened and closed, and statfs(2) called, at fixed
  paces, too.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure import slow_disk
from deferfs.measure.mounts.loaded_pass import Jobs, loaded_pass
from deferfs.measure.mounts.slow_mount import prepared_image, slow_mount
from deferfs.measure.scenario import Loop, Measure, Pass, Prepared, Scenario, Side, Surroundings
from deferfs.measure.work.paced import Load

BLOCK: Final = bytes(4096)
DIRECTORIES: Final = 16
MEMORY: Final = "64M"
"""Plenty: nothing waits for memory here."""
OPENS_PER_SECOND: Final = 200.0
STATFS_PER_SECOND: Final = 200.0
HANDLERS: Final = (1, 4, 10, 99)
"""One; few; the default of libfuse; the maximum of deferfs."""
DESCRIPTORS_OF_ITS_OWN: Final = 64
SIDES: Final = (
    Side("inline", "deferfs, inline", "inline"),
    Side("deferred", "deferfs, deferred", "deferred"),
    Side("floor", "deferfs with inodegc stopped until the clock has stopped", "floor"),
)
OPEN_WORDS: Final = "a request beside the storm (open and close of a hot file)"


class Parameters(msgspec.Struct, frozen=True):
    """`handlers`: maximum of requests the daemon handles at once. `files` are deleted, each of `extents` extents, and
    closed at a pace of `closes_per_second` in the open loop (0: as fast as possible; then few FORGET messages carry all
    of them, which block few handlers). `seconds`: duration of the other requests.
    """

    handlers: int = 1
    files: int = 600
    extents: int = 24
    closes_per_second: float = 1500.0
    seconds: float = 1.0


def file_path(root: str, number: int) -> str:
    """A file that is deleted while it is open."""
    return f"{root}/held{number % DIRECTORIES}/{number}"


def make_files(root: Path, parameters: Parameters) -> None:
    """Files whose blocks have holes between them, so that each block is an extent."""
    for number in range(DIRECTORIES):
        (root / f"held{number}").mkdir()
    for number in range(parameters.files):
        descriptor = os.open(file_path(str(root), number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        for extent in range(parameters.extents):
            os.pwrite(descriptor, BLOCK, 2 * extent * len(BLOCK))
        os.close(descriptor)
    (root / "hot").touch()


class Holder:
    """Deleted files that are open; `close` closes them one by one."""

    def __init__(self, root: Path, files: int) -> None:
        self._root = str(root)
        self._files = files
        self._descriptors: list[int] = []

    def take(self) -> None:
        """Open and delete all files, in an order that defeats read-ahead, and sync."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, self._files + DESCRIPTORS_OF_ITS_OWN), hard))
        paths = [file_path(self._root, number) for number in range(self._files)]
        random.Random(self._files).shuffle(paths)
        self._descriptors = [os.open(path, os.O_RDONLY) for path in paths]
        for path in paths:
            os.unlink(path)
        directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)

    def close(self, number: int) -> None:
        """Drop the last reference to file `number`."""
        os.close(self._descriptors[number])


def loads(root: Path, loop: Loop, parameters: Parameters) -> list[Load]:
    """The process that closes its files, and the requests of others."""
    holder = Holder(root, parameters.files)
    hot = str(root / "hot")
    count = round(OPENS_PER_SECOND * parameters.seconds)

    def open_hot(_: int) -> None:
        os.close(os.open(hot, os.O_RDONLY))

    pace = parameters.closes_per_second if loop == "open" else 0.0
    storm = Load("close", holder.close, count=parameters.files, per_second=pace, first=holder.take)
    if loop == "closed":
        return [storm, Load("open", open_hot, count=count, first=lambda: open_hot(0))]
    return [
        storm,
        Load("open", open_hot, count=count, per_second=OPENS_PER_SECOND, first=lambda: open_hot(0)),
        Load(
            "statfs",
            lambda _: os.statvfs(root),
            count=round(STATFS_PER_SECOND * parameters.seconds),
            per_second=STATFS_PER_SECOND,
        ),
    ]


class Passes:
    """Passes on copies of the prepared image."""

    def __init__(self, image: Callable[[], Path], parameters: Parameters, surroundings: Surroundings) -> None:
        self._image = image
        self.finish_preparing = image
        self._parameters = parameters
        self._surroundings = surroundings

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """As `Prepared.perform`. The files are opened while the disk is fast; for the floor, inodegc is stopped."""
        surroundings, parameters = self._surroundings, self._parameters
        evict = "inline" if side.role == "inline" else "deferred"
        options = [f"evict={evict}", f"handlers={parameters.handlers}", f"memory={MEMORY}"]
        with slow_mount(self._image(), options, surroundings) as mount:
            mount.disk.set_preset("none")
            if side.role == "floor":
                mount.set("gc", "stop")
            return loaded_pass(
                side,
                loop,
                mount,
                Jobs(loads(mount.root, loop, parameters)),
                surroundings,
                hot=mount.root / "hot",
                ready=lambda: mount.disk.set_preset(surroundings.disk),
            )


class Dispatch:
    """The scenario: see the head of this module."""

    name = "dispatch"
    mechanism = (
        "A request waits until a handler of the daemon is free; inline, those of FORGET and RELEASE wait for the disk."
    )
    parameters: type[msgspec.Struct] = Parameters
    measures: tuple[Measure, ...] = (
        Measure("open", "p50", OPEN_WORDS),
        Measure("open", "p99", OPEN_WORDS),
        Measure("open", "max", OPEN_WORDS),
        Measure("statfs", "max", "a statfs beside the storm"),
        Measure("close", "max", "the close of a deleted file"),
        Measure("seconds", "value", "the whole work until nothing was owed, seconds", "closed"),
    )
    loops: tuple[Loop, ...] = ("open", "closed")
    pairs = 5
    disk = "read=2,write=2,flush=5"
    """2 ms a request, 5 ms a flush, where the command line names no other."""

    def sweep(self, parameters: Parameters) -> Sequence[Parameters]:
        """Handlers from one to the most there can be."""
        return [msgspec.structs.replace(parameters, handlers=handlers) for handlers in HANDLERS]

    def sides(self, parameters: Parameters) -> Sequence[Side]:
        """Always the same three."""
        return SIDES

    def missing(self, side: Side, parameters: Parameters) -> str:
        """As `Scenario.missing`."""
        return slow_disk.missing()

    @contextlib.contextmanager
    def prepared(self, parameters: Parameters, surroundings: Surroundings) -> Iterator[Prepared]:
        """As `Scenario.prepared`."""
        surroundings.tell(f"making {parameters.files:,} files of {parameters.extents:,} extents")
        with prepared_image(surroundings, lambda root: make_files(root, parameters)) as image:
            yield Passes(image, parameters, surroundings)

    def sentences(self, passes: Sequence[Pass], parameters: Parameters) -> list[str]:
        """The number of handlers."""
        many = "" if parameters.handlers == 1 else "s"
        return [f"the daemon had {parameters.handlers} handler{many} of requests"] if passes else []


SCENARIO: Scenario = Dispatch()
