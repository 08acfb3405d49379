"""Inodes in use, evicted and cleaned up, in every order: a state machine whose schedule is the example.

To extend it, add a method to the world that does one thing to volume and model, and a rule that calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deferfs.limits import INACTIVATION_RETRIES_MAX
from tests.examples import examples
from tests.property.reclaim_model import File
from tests.property.reclaim_world import World

NAMES = [b"a", b"b", b"c", b"d", b"e"]
T = TypeVar("T")

choices = st.integers(0, 40)


def choose(among: Sequence[T], number: int) -> T:
    """By number, so that a shorter example stays an example."""
    return among[number % len(among)]


class Reclaim(RuleBasedStateMachine):
    """Each rule has a precondition, so that none is drawn in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        for name in NAMES[:3]:
            self.world.create(name, 1)

    def active(self) -> list[File]:
        return [file for file in self.world.model.files if file.active]

    def known(self) -> list[File]:
        return [file for file in self.world.model.files if file.lookups]

    def taken_names(self) -> list[bytes]:
        taken = [job.file for job in self.world.jobs]
        return [name for name, file in sorted(self.world.names.items()) if file in taken]

    # --- what the kernel does ---
    @precondition(lambda self: len(self.world.names) < len(NAMES) and self.world.takes_more)
    @rule(number=choices, extents=st.sampled_from([1, 0, 70]))
    def create(self, number: int, extents: int) -> None:
        self.world.create(choose([name for name in NAMES if name not in self.world.names], number), extents)

    @precondition(lambda self: self.world.names)
    @rule(number=choices, count=st.integers(1, 3))
    def look_up(self, number: int, count: int) -> None:
        self.world.look_up(choose(sorted(self.world.names), number), count)

    @precondition(lambda self: self.known())
    @rule(batch=st.lists(st.tuples(choices, st.integers(1, 4)), min_size=1, max_size=6))
    def forget(self, batch: list[tuple[int, int]]) -> None:
        """In any order, several times for one inode, never more than was given."""
        left = {file: file.lookups for file in self.known()}
        forgotten: list[tuple[File, int]] = []
        for number, count in batch:
            among = [file for file, lookups in left.items() if lookups]
            if among:
                file = choose(among, number)
                count = min(count, left[file])
                left[file] -= count
                forgotten.append((file, count))
        self.world.forget(forgotten)

    @precondition(lambda self: self.known())
    @rule()
    def forget_everything(self) -> None:
        self.world.forget([(file, file.lookups) for file in self.known()])

    @precondition(lambda self: self.active())
    @rule(number=choices)
    def open(self, number: int) -> None:
        self.world.open(choose(self.active(), number))

    @precondition(lambda self: self.world.handles)
    @rule(number=choices)
    def close(self, number: int) -> None:
        self.world.close(choose(self.world.handles, number))

    @precondition(lambda self: self.world.names)
    @rule(number=choices)
    def unlink(self, number: int) -> None:
        self.world.unlink(choose(sorted(self.world.names), number))

    @precondition(lambda self: self.world.names)
    @rule(number=choices, last=st.booleans())
    def delete(self, number: int, last: bool) -> None:
        """`rm` by a process that looked the name up, alone or with another one that still refers to the inode."""
        name = choose(sorted(self.world.names), number)
        file = self.world.names[name]
        self.world.look_up(name, 1)
        self.world.unlink(name)
        self.world.forget([(file, file.lookups if last else 1)])

    @precondition(lambda self: 0 < len(self.world.names) < len(NAMES))
    @rule(number=choices)
    def link(self, number: int) -> None:
        name = choose(sorted(self.world.names), number)
        self.world.look_up(name, 1)
        self.world.link(name, choose([new for new in NAMES if new not in self.world.names], number))

    @precondition(lambda self: self.active())
    @rule(number=choices)
    def read(self, number: int) -> None:
        self.world.read(choose(self.active(), number))

    @precondition(lambda self: self.active() and self.world.takes_more)
    @rule(number=choices, length=st.sampled_from([100, 5000, 70_000]))
    def append(self, number: int, length: int) -> None:
        self.world.append(choose(self.active(), number), length)

    # --- pressure and switches ---
    @precondition(lambda self: self.world.model.idle)
    @rule(wanted=st.integers(1, 6), due_max=st.integers(1, 3))
    def shrink(self, wanted: int, due_max: int) -> None:
        self.world.shrink(wanted, due_max)

    @precondition(lambda self: any(not file.handles for file in self.known()))
    @rule(number=choices, take=st.booleans())
    def read_forget_evict(self, number: int, take: bool) -> None:
        """An inode that still has an access time to be written when memory is wanted."""
        file = choose([file for file in self.known() if not file.handles], number)
        self.world.read(file)
        self.world.forget([(file, file.lookups)])
        self.world.shrink(100, 100)
        if take:
            for queue in range(len(self.world.gc.queues)):
                self.world.take(100, queue)

    @rule(policy=st.sampled_from(["deferred", "inline", "deferred", "deferred"]))
    def switch(self, policy: str) -> None:
        self.world.switch(policy)

    @precondition(lambda self: not self.world.model.stopped and self.world.gc.backlog)
    @rule()
    def freeze(self) -> None:
        self.world.stop()

    @precondition(lambda self: self.world.model.stopped)
    @rule()
    def thaw(self) -> None:
        self.world.start()

    # --- passive references ---
    @precondition(lambda self: self.world.cache.table)
    @rule(number=choices)
    def watch(self, number: int) -> None:
        self.world.watch(choose([file for file in self.world.model.files if file.state is not None], number))

    @precondition(lambda self: self.world.watches)
    @rule(number=choices)
    def unwatch(self, number: int) -> None:
        self.world.unwatch(choose(self.world.watches, number))

    @precondition(lambda self: self.world.watches)
    @rule(number=choices)
    def try_activate(self, number: int) -> None:
        self.world.try_activate(choose(self.world.watches, number))

    # --- inodegc ---
    @precondition(lambda self: self.world.gc.queued and not self.world.model.stopped)
    @rule(count=st.integers(1, 4), queue=st.integers(0, 3))
    def take(self, count: int, queue: int) -> None:
        self.world.take(count, queue)

    @precondition(lambda self: self.world.gc.queued and not self.world.model.stopped)
    @rule()
    def take_everything(self) -> None:
        for queue in range(len(self.world.gc.queues)):
            self.world.take(100, queue)

    @precondition(lambda self: self.world.gc.queued and not self.world.model.stopped)
    @rule(queue=st.integers(0, 3), number=choices)
    def take_and_begin(self, queue: int, number: int) -> None:
        self.world.take(4, queue)
        if self.world.jobs:
            self.world.step(choose(self.world.jobs, number))

    @precondition(lambda self: self.world.jobs)
    @rule(number=choices)
    def step(self, number: int) -> None:
        self.world.step(choose(self.world.jobs, number))

    @precondition(lambda self: bool(self.taken_names()))
    @rule(number=choices, begun=st.booleans(), steps=st.integers(0, 2))
    def look_up_taken(self, number: int, begun: bool, steps: int) -> None:
        """A process looks up a file that a worker is about to clean up, or is cleaning up, and the worker continues."""
        name = choose(self.taken_names(), number)
        job = next(job for job in self.world.jobs if job.file is self.world.names[name])
        if begun and job.inactivation is None:
            self.world.step(job)
        self.world.look_up(name, 1)
        for _ in range(steps):
            if job in self.world.jobs:
                self.world.step(job)

    @precondition(lambda self: self.world.jobs)
    @rule()
    def finish_everything(self) -> None:
        while self.world.jobs:
            self.world.step(self.world.jobs[0])

    @precondition(lambda self: self.world.jobs)
    @rule(number=choices)
    def fail(self, number: int) -> None:
        self.world.fail(choose(self.world.jobs, number))

    @precondition(lambda self: self.world.gc.queued and not self.world.model.stopped)
    @rule(times=st.sampled_from([INACTIVATION_RETRIES_MAX, 1, 2]))
    def fail_often(self, times: int) -> None:
        """A disk that stays broken for a while."""
        for _ in range(times):
            self.world.retry()
            self.take_everything()
            while self.world.jobs:
                self.world.fail(self.world.jobs[0])

    @precondition(lambda self: self.world.gc.delayed)
    @rule()
    def retry(self) -> None:
        self.world.retry()

    @precondition(lambda self: self.world.gc.quarantined_total)
    @rule()
    def readmit(self) -> None:
        self.world.readmit()

    @precondition(lambda self: self.world.gc.queued)
    @rule(blocks=st.integers(1, 40))
    def hasten(self, blocks: int) -> None:
        self.world.gc.hasten_space(blocks)

    @precondition(lambda self: self.world.gc.queued)
    @rule(count=st.integers(1, 4))
    def resize(self, count: int) -> None:
        self.world.gc.resize(count)

    @rule()
    def commit(self) -> None:
        self.world.driver.commit()

    # --- always ---
    @invariant()
    def volume_and_model_agree(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.end()


Reclaim.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=60)
TestReclaim = Reclaim.TestCase
