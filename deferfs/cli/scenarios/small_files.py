"""Small files and metadata: deferfs against fuse2fs, gocryptfs and the null filesystem."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Final

import msgspec

from deferfs.measure.environment import missing_for_mounts
from deferfs.measure.mounts.daemon import daemon_of
from deferfs.measure.mounts.rivals import Deferfs, Filesystem, Fuse2fs, Gocryptfs, Program, fresh
from deferfs.measure.scenario import Measure, Pass, Side, Surroundings
from deferfs.measure.simple import SimpleScenario, value_pass
from deferfs.measure.work.small_files import ROWS, time_row

OURS: Final = "deferfs"
NULL_COMMAND: Final = (sys.executable, "-m", "deferfs.cli.scenarios.null_filesystem")
SIDES: Final = (
    Side(OURS, "deferfs", "deferred"),
    Side("null", "dictionaries behind pyfuse3", "floor"),
    Side("fuse2fs", "fuse2fs", "kernel"),
    Side("gocryptfs", "gocryptfs", "kernel"),
)


class Parameters(msgspec.Struct, frozen=True):
    """`files` of each row; `options`: mount options of deferfs."""

    files: int = 2000
    options: str = ""


def filesystem_of(side: Side, parameters: Parameters) -> Filesystem:
    """The filesystem of a side."""
    if side.name == "null":
        return Program("null", NULL_COMMAND)
    if side.name == "fuse2fs":
        return Fuse2fs()
    return Gocryptfs() if side.name == "gocryptfs" else Deferfs(parameters.options)


def lacking(side: Side, parameters: Parameters) -> str:
    """Root, FUSE, or the program."""
    missing = [need for need in filesystem_of(side, parameters).needs if shutil.which(need) is None]
    return f"{', '.join(missing)} not installed" if missing else missing_for_mounts()


def counter_of(row: str) -> str:
    """The name of a row's counter: seconds for one file."""
    return f"{row}_seconds"


def measure(side: Side, parameters: Parameters, surroundings: Surroundings, number: int) -> Pass:
    """All rows on a fresh filesystem."""
    counters = {}
    start = time.monotonic()
    with fresh(filesystem_of(side, parameters), surroundings.scratch) as root:
        if side.name == OURS:
            daemon_of(root, surroundings)
        (root / "work").mkdir()  # the root of fuse2fs has a lost+found, and none of ours may be in the way
        for row in ROWS:
            counters[counter_of(row.name)] = time_row(row, root / "work", parameters.files) / parameters.files
    return value_pass(side, time.monotonic() - start, counters)


SCENARIO = SimpleScenario(
    name="small-files",
    mechanism=(
        "Small files and metadata beside other filesystems in userspace; the floor is a filesystem that keeps "
        "dictionaries in memory behind the same pyfuse3 and the same readers."
    ),
    parameters=Parameters,
    work=measure,
    side_list=SIDES,
    measures=tuple(Measure(counter_of(row.name), "value", row.name, "closed") for row in ROWS),
    pairs=6,
    lacking=lacking,
)
