from __future__ import annotations

from pathlib import Path

import pytest

from deferfs.reclaim.states import TRANSITIONS, State, transition_table

S = State
DOCUMENT = Path(__file__).parents[3] / "docs" / "reclaim.md"


def before(state: State) -> set[State]:
    return {found for found, following in TRANSITIONS.items() if state in following}


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    assert transition_table() in DOCUMENT.read_text()


def test_an_inode_is_freed_only_when_it_is_reclaimable_and_then_always() -> None:
    assert before(S.FREED) == {S.RECLAIMABLE}
    assert set(TRANSITIONS[S.RECLAIMABLE]) == {S.FREED}
    assert not TRANSITIONS[S.FREED]


def test_an_inactivation_begins_only_with_an_inode_that_needs_it() -> None:
    assert before(S.QUEUED) == {S.NEED_INACTIVE}
    assert before(S.INACTIVATING) == {S.NEED_INACTIVE, S.QUEUED}
    assert before(S.QUARANTINED) == {S.INACTIVATING}


def test_an_inode_can_become_live_again_until_it_is_reclaimable() -> None:
    assert before(S.LIVE) == set(S) - {S.LIVE, S.RECLAIMABLE, S.FREED}


@pytest.mark.parametrize("state", list(State))
def test_every_state_can_be_reached_and_ends_in_freed(state: State) -> None:
    assert state is S.NEW or any(state in following for following in TRANSITIONS.values())
    seen = {state}
    while more := {following for s in seen for following in TRANSITIONS[s]} - seen:
        seen |= more
    assert S.FREED in seen


def test_the_table_for_the_docs_names_every_state() -> None:
    rows = transition_table().splitlines()
    assert [row.split()[1] for row in rows[2:]] == [state.name for state in State]
    assert "| FREED | (final) |" in rows
    assert "| NEW | LIVE, NEED_INACTIVE |" in rows
