"""The crash tests can fail: each planted fault is found, and quickly."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from deferfs.crash.campaign import numbered, run_campaign
from deferfs.crash.exploration import Task
from deferfs.crash.world import fresh_free, fresh_image
from deferfs.store.space import FreeSpace
from tests.examples import night
from tests.property.background_faults import BACKGROUND, FAULTS
from tests.property.hunt import SWEEPS, hunt
from tests.property.waiting_faults import WAITING

STATES_MAX = 4000
"""Crash states within which the sweep made for a fault has found it."""
WORLDS = 150
RUNS = 100
NOT_BY_CHANCE = {
    "freed_blocks_are_used_again_during_a_checkpoint": "needs a checkpoint held up in one place",
    "freed_blocks_are_used_again_while_they_come_home": "needs a write home held up until its block has a new owner",
    "a_payment_that_fails_is_settled": "needs the abort between the start of a sweep of payments and an update in it",
    "only_the_first_block_of_revokes_counts": "needs more than a hundred blocks freed in one transaction",
    "only_the_first_descriptor_counts": "needs more than sixty blocks changed in one transaction",
    "long_runs_are_replayed_in_part": "needs more than sixty changed blocks side by side",
    "long_runs_are_brought_home_in_part": "needs more than sixty changed blocks side by side",
    "a_time_that_is_paid_is_hidden_from_fsync": "needs an fsync of that very inode between the payment and a commit",
    "freed_blocks_are_used_again_before_their_discard": "needs a commit held up between two of its discards",
}
"""Faults that only a sweep is asked to find, and why."""
NOT_BY_CHANCE |= dict.fromkeys(WAITING, "breaks a promise that a sweep checks, or takes a wait at one moment")
NOT_BY_CHANCE |= dict.fromkeys(BACKGROUND, "a random run has commits, checkpoints and payments that are not due, too")
FIRST = {fault.sweep: name for name, fault in reversed(FAULTS.items())}.values()
"""Of each sweep the first fault that it is to find: shows in the usual run that the sweep can fail."""


@pytest.fixture(autouse=True)
def counts_may_be_wrong(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Under a fault the counts of free space need not add up: what finds it is the oracle. Jobs that were left half way
    end in here, too."""
    monkeypatch.setattr(FreeSpace, "check", lambda space: None)
    yield
    gc.collect()


@pytest.mark.parametrize("name", [name if name in FIRST else night(name) for name in FAULTS])
def test_the_sweep_finds_the_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    fault.plant(monkeypatch)
    found = hunt(1, only=fault.sweep)
    assert found is not None, f"{fault.sweep} does not find it"
    assert found.states < STATES_MAX


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(FAULTS.keys() - NOT_BY_CHANCE.keys()))
def test_chance_finds_the_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random runs with all their crashes, or random worlds that go on from some."""
    fresh_image.cache_clear()
    fresh_free.cache_clear()
    FAULTS[name].plant(monkeypatch)
    found = run_campaign(numbered(Task(0, 100), RUNS)).finding is not None
    assert found or hunt(1, only="", worlds=WORLDS) is not None


def test_every_fault_names_a_sweep() -> None:
    assert {fault.sweep for fault in FAULTS.values()} <= SWEEPS.keys()
