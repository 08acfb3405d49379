"""The churn workload: rounds of create, write, stat, reopen and delete, in a closed loop.

A round makes a handful of files that are written in turns, 4 KiB at a time and with a hole after
each block, so that each block becomes an extent of its own whatever the filesystem preallocates.
They are deleted together with fragmented files that were there before (see `victims`), half of
them while they are open. Between that, cold files of the big tree are looked up, which fills the
cgroup with dentries and makes the kernel drop others; a few are opened again and changed.

Everything follows from the seed and the number of the round, so two runs with the same number of
rounds do the same work. With `second_names` each file has a second name when it is deleted: the
same requests, but the inode keeps a link, so that its eviction has no blocks and no inode to free.
"""

from __future__ import annotations

import os
import random
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from deferfs.errors import DeferfsError
from deferfs.measure.stats.histogram import Histogram, fold
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.tree import tree_path, walk_tree
from deferfs.measure.work.victims import victim_path

T = TypeVar("T")
BLOCK: Final = bytes(range(256)) * 16
NEW_BLOCKS: Final = (1, 1, 2, 4, 8, 16, 32)
"""Blocks, and so extents, of the files made in one round: many small ones and a tail, 64 in all."""
VICTIMS_PER_ROUND: Final = 12
"""Files from before that one round deletes: of 24 extents each, so 288 in all."""
CHURN_DIRECTORIES: Final = 16
STATS_PER_ROUND: Final = 160
REOPENS_PER_ROUND: Final = 4
APPEND: Final = b"a line added to a file that had been closed\n" * 4
KINDS: Final = ("open", "create", "write", "fsync", "close", "stat", "reopen", "delete")


class WorkloadResult(msgspec.Struct, frozen=True):
    """The results of the workload: `kinds` has the latencies of each kind of operation."""

    rounds: int
    operations: int
    seconds: float
    kinds: dict[str, Histogram]


class Work(msgspec.Struct, frozen=True):
    """The amount of work: `rounds`, or when that is 0 as many as fit into `seconds`.

    The workload also ends when it has deleted all `victims`.
    """

    rounds: int
    seconds: float
    tree_files: int
    victims: int
    seed: int
    second_names: bool = False
    """Each new file gets a second name at once, untimed, so that its deletion leaves nothing to clean up."""


class Churn:
    """The workload on the directory `root`: the job of one worker process."""

    name = "workload"

    def __init__(self, root: Path, work: Work) -> None:
        self._root = str(root)
        self._work = work
        self._samples = {kind: array("Q") for kind in KINDS}
        self._second_names = 0
        available = work.victims // VICTIMS_PER_ROUND
        self._rounds_max = min(work.rounds or available, available)

    def prepare(self) -> None:
        """Make the directories, and walk the tree so that the cgroup is full before the start."""
        for index in range(CHURN_DIRECTORIES):
            os.makedirs(f"{self._root}/churn/{index}", exist_ok=True)
        os.makedirs(f"{self._root}/second-names", exist_ok=True)
        entries = walk_tree(self._root)
        if entries != self._work.tree_files:
            raise DeferfsError(
                f"the tree in {self._root} has {entries} files instead of {self._work.tree_files}; "
                "start with an empty directory"
            )

    def measure(self, stop: StopFlag) -> WorkloadResult:
        """Do the rounds; `stop` ends them early."""
        start = time.monotonic_ns()
        deadline = start + int(self._work.seconds * 1e9)
        rounds = 0
        while not stop and rounds < self._rounds_max:
            if not self._work.rounds and rounds and time.monotonic_ns() >= deadline:
                break
            self._round(rounds)
            rounds += 1
        seconds = (time.monotonic_ns() - start) / 1e9
        return WorkloadResult(
            rounds=rounds,
            operations=sum(len(samples) for samples in self._samples.values()),
            seconds=seconds,
            kinds={kind: fold(samples) for kind, samples in self._samples.items()},
        )

    def _round(self, number: int) -> None:
        choose = random.Random(self._work.seed * 1_000_003 + number)
        first = number * VICTIMS_PER_ROUND
        victims = [victim_path(self._root, first + index) for index in range(VICTIMS_PER_ROUND)]
        opened = [self._open(path) for path in victims[::2]]
        directory = f"{self._root}/churn/{number % CHURN_DIRECTORIES}"
        paths = [f"{directory}/{number}.{index}" for index in range(len(NEW_BLOCKS))]
        sizes = choose.sample(NEW_BLOCKS, len(NEW_BLOCKS))
        files = [self._create(path) for path in paths]
        self._write_in_turns(files, sizes)
        self._timed("fsync", lambda: os.fsync(files[choose.randrange(len(files))]))
        half = len(files) // 2
        for descriptor in files[:half]:
            self._close(descriptor)
        self._stat_cold(choose, STATS_PER_ROUND // 2)
        for _ in range(REOPENS_PER_ROUND):
            self._reopen(tree_path(self._root, choose.randrange(self._work.tree_files)))
        for path in (*paths, *victims):
            self._delete(path)
        self._stat_cold(choose, STATS_PER_ROUND // 2)
        for descriptor in (*files[half:], *opened):
            self._close(descriptor)

    def _create(self, path: str) -> int:
        descriptor = self._timed("create", lambda: os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        if self._work.second_names:
            os.link(path, f"{self._root}/second-names/{self._second_names}")
            self._second_names += 1
        return descriptor

    def _open(self, path: str) -> int:
        return self._timed("open", lambda: os.open(path, os.O_RDONLY))

    def _write_in_turns(self, files: list[int], sizes: list[int]) -> None:
        for index in range(max(sizes)):
            for descriptor, blocks in zip(files, sizes, strict=True):
                if index < blocks:
                    offset = 2 * index * len(BLOCK)
                    start = time.monotonic_ns()
                    os.pwrite(descriptor, BLOCK, offset)
                    self._samples["write"].append(time.monotonic_ns() - start)

    def _stat_cold(self, choose: random.Random, count: int) -> None:
        for _ in range(count):
            path = tree_path(self._root, choose.randrange(self._work.tree_files))
            start = time.monotonic_ns()
            os.stat(path)
            self._samples["stat"].append(time.monotonic_ns() - start)

    def _reopen(self, path: str) -> None:
        def reopen() -> None:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(descriptor, APPEND)
            os.close(descriptor)

        self._timed("reopen", reopen)

    def _close(self, descriptor: int) -> None:
        self._timed("close", lambda: os.close(descriptor))

    def _delete(self, path: str) -> None:
        self._timed("delete", lambda: os.unlink(path))

    def _timed(self, kind: str, operation: Callable[[], T]) -> T:
        start = time.monotonic_ns()
        answer = operation()
        self._samples[kind].append(time.monotonic_ns() - start)
        return answer
