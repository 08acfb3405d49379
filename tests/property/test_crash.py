"""Crashes at drawn moments of drawn runs: the volume against its model, cut, recovered, judged.

Every rule only names an action and its numbers, so that a failing example can be written down as a list and replayed
(see `runs.replay`).
"""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from deferfs.crash.actions import BACKGROUND, NUMBER_MAX, OPERATIONS, act
from deferfs.crash.endings import Numbers
from deferfs.crash.runs import CHECKPOINTS, random_actions, weighted
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World
from deferfs.limits import JOURNAL_BLOCKS_MIN
from tests.examples import examples

pytestmark = [pytest.mark.timeout(600), pytest.mark.compiled]
_number = st.integers(0, NUMBER_MAX - 1)
_numbers = st.tuples(_number, _number, _number, _number)
_DATA = frozenset({"write", "append", "scatter", "truncate", "read"})
_HANDLES = frozenset({"look_up", "forget", "forget_all", "open", "release", "open_and_unlink"})


class Crashes(RuleBasedStateMachine):
    """One world. Subclasses choose the block size."""

    block_size = 1024
    sizes = (150, 1200)
    warm_max = 300

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(
        free_blocks=st.integers(0, 1),
        small_journal=st.booleans(),
        evict=st.sampled_from(["deferred", "inline"]),
        tight_memory=st.booleans(),
        warm=st.integers(0, 3),
        seed=_number,
    )
    def start(
        self, free_blocks: int, small_journal: bool, evict: str, tight_memory: bool, warm: int, seed: int
    ) -> None:
        """A new filesystem, or one that has been in use: its log is somewhere on its way round, blocks were freed."""
        shape = Shape(
            self.block_size,
            self.sizes[free_blocks],
            SMALL_JOURNAL_BLOCKS if small_journal else JOURNAL_BLOCKS_MIN,
            evict,
            160 << 10 if tight_memory and self.block_size == 1024 else 64 << 20,
        )
        self.world = World(shape, seed)
        for word, numbers in random_actions(random.Random(seed), warm * self.warm_max // 3):
            self._do(word, numbers)

    def _do(self, word: str, numbers: Numbers) -> None:
        assert self.world is not None
        act(self.world, word, numbers)

    @rule(word=st.sampled_from(weighted(OPERATIONS.keys() - _DATA - _HANDLES)), numbers=_numbers)
    def change_names_or_attributes(self, word: str, numbers: Numbers) -> None:
        self._do(word, numbers)

    @rule(word=st.sampled_from(weighted(_DATA)), numbers=_numbers)
    def change_data(self, word: str, numbers: Numbers) -> None:
        self._do(word, numbers)

    @rule(word=st.sampled_from(weighted(_HANDLES)), numbers=_numbers)
    def refer(self, word: str, numbers: Numbers) -> None:
        self._do(word, numbers)

    @rule(word=st.sampled_from(weighted(BACKGROUND.keys() - CHECKPOINTS)), numbers=_numbers)
    def commit_or_collect(self, word: str, numbers: Numbers) -> None:
        self._do(word, numbers)

    @rule(word=st.sampled_from(weighted(CHECKPOINTS)), numbers=_numbers)
    def checkpoint(self, word: str, numbers: Numbers) -> None:
        self._do(word, numbers)

    @rule(numbers=_numbers)
    def cut(self, numbers: Numbers) -> None:
        self._do("cut", numbers)

    @precondition(lambda self: self.world is not None and self.world.generation < 3)
    @rule(numbers=_numbers)
    def crash(self, numbers: Numbers) -> None:
        self._do("crash", numbers)

    @rule()
    def verify(self) -> None:
        assert self.world is not None
        self.world.twin.verify()


class CrashesWith4K(Crashes):
    block_size = 4096
    sizes = (100, 600)


class CrashesWith64K(Crashes):
    block_size = 65536
    sizes = (70, 120)
    warm_max = 150


def _run(machine: type[Crashes], count: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples(count), stateful_step_count=50, deadline=None),
    )


def test_crashes_with_1k_blocks() -> None:
    _run(Crashes, 240)


def test_crashes_with_4k_blocks() -> None:
    _run(CrashesWith4K, 40)


def test_crashes_with_64k_blocks() -> None:
    _run(CrashesWith64K, 6)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("machine", "examples"), [(Crashes, 2000), (CrashesWith4K, 400), (CrashesWith64K, 40)], ids=["1k", "4k", "64k"]
)
def test_many_more_crashes(machine: type[Crashes], examples: int) -> None:
    _run(machine, examples)
