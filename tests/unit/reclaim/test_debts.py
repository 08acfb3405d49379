"""The table of access times owed: a dict in a few bytes a debt."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deferfs.reclaim.debts import SLOT_BYTES, TimeDebts, slots_for

INOS = st.one_of(st.integers(1, 80), st.integers(1, (1 << 64) - 1))
GENERATIONS = st.integers(0, 2)
TIMES = st.integers(-(1 << 63), (1 << 63) - 1).filter(bool)


class AsADict(RuleBasedStateMachine):
    """64 slots and few numbers: chains are long, wrap round, and are closed in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.debts = TimeDebts(64)
        self.model: dict[int, tuple[int, int]] = {}

    @rule(ino=INOS, generation=GENERATIONS, time=TIMES)
    def add(self, ino: int, generation: int, time: int) -> None:
        fits = len(self.model) < 48
        assert self.debts.full != fits
        assert self.debts.add(ino, generation, time) == fits
        if fits:
            self.model[ino] = generation, time

    @rule(ino=INOS, generation=GENERATIONS)
    def take(self, ino: int, generation: int) -> None:
        known = self.model.pop(ino, None)
        expected = known[1] if known is not None and known[0] == generation else 0
        assert self.debts.look(ino, generation) == expected
        assert self.debts.take(ino, generation) == expected

    @rule(ino=INOS, time=TIMES)
    def settle(self, ino: int, time: int) -> None:
        """A payment that was overtaken by a later debt settles nothing."""
        before = self.debts.paid_total
        self.debts.settle([(ino, 0, time)])
        settled = ino in self.model and self.model[ino][1] == time
        if settled:
            del self.model[ino]
        assert self.debts.paid_total == before + settled

    @rule(inos=st.sets(INOS), data=st.data())
    def settle_several(self, inos: set[int], data: st.DataObject) -> None:
        """Those of many blocks at once, in any order: their slots lie in one cluster, or in several."""
        known = data.draw(st.permutations(sorted(self.model)[::2] + sorted(inos - self.model.keys())))
        self.debts.settle([(ino, *self.model.get(ino, (0, 1))) for ino in known])
        for ino in known:
            self.model.pop(ino, None)

    @rule(first=st.integers(1, 80))
    def pay_a_block(self, first: int) -> None:
        found = self.debts.of_block(first, 8)
        assert found == [(ino, *self.model[ino]) for ino in range(first, first + 8) if ino in self.model]
        self.debts.settle(found)
        for ino, _, _ in found:
            del self.model[ino]

    @invariant()
    def it_holds_what_the_dict_holds(self) -> None:
        assert self.debts.count == len(self.model)
        assert sorted(self.debts.debtors(0, 64)) == sorted(self.model)
        assert all(self.debts.owes(ino) for ino in self.model)
        assert self.debts.debtors_among(1, 90) == [ino for ino in range(1, 91) if ino in self.model]
        assert (self.debts.resident_bytes == 0) == (not self.model)


TestAsADict = AsADict.TestCase


@given(budget=st.integers(0, 1 << 34))
def test_the_table_keeps_to_its_budget(budget: int) -> None:
    slots = slots_for(budget)
    assert slots & (slots - 1) == 0
    assert slots == 64 or slots * SLOT_BYTES <= budget < 2 * slots * SLOT_BYTES


def test_a_debt_costs_less_than_thirty_two_bytes() -> None:
    debts = TimeDebts(1 << 12)
    while debts.add(debts.count + 1000, 7, 1):
        pass
    assert debts.resident_bytes / debts.count < 32


def test_the_inodes_of_a_block_lie_together() -> None:
    """So that paying a block looks at few cache lines, and a part of the table holds whole blocks."""
    debts = TimeDebts(1 << 12)
    for ino in range(8_000, 8_064):
        debts.add(ino, 1, 1)
    parts = [set(debts.debtors(at, 8)) for at in range(0, 1 << 12, 8)]
    whole = [part for part in parts if len({ino // 8 for ino in part}) == 1 and len(part) == 8]
    assert len(whole) >= 6


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="counts resident pages")
def test_an_empty_table_takes_no_memory() -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    debts = TimeDebts(1 << 20)
    before = resident()
    for ino in range(8, 1 << 23, 64):
        debts.add(ino, 1, 1)
    full = resident()
    for ino in range(8, 1 << 23, 64):
        assert debts.take(ino, 1) == 1
    assert full - before > 8 << 20
    assert resident() - before < (full - before) // 4
