from __future__ import annotations

import pytest

from deferfs.reclaim.states import TRANSITIONS, State, transition_table

S = State
ALLOWED = {
    S.NEW: {S.LIVE, S.NEED_INACTIVE},
    S.LIVE: {S.IDLE, S.NEED_INACTIVE},
    S.IDLE: {S.LIVE, S.NEED_INACTIVE, S.RECLAIMABLE},
    S.NEED_INACTIVE: {S.LIVE, S.QUEUED, S.INACTIVATING, S.RECLAIMABLE},
    S.QUEUED: {S.LIVE, S.INACTIVATING},
    S.INACTIVATING: {S.LIVE, S.NEED_INACTIVE, S.RECLAIMABLE, S.QUARANTINED},
    S.RECLAIMABLE: {S.FREED},
    S.FREED: set(),
    S.QUARANTINED: {S.NEED_INACTIVE, S.RECLAIMABLE, S.LIVE},
}


def test_the_table_is_the_one_of_the_design() -> None:
    assert {state: set(following) for state, following in TRANSITIONS.items()} == ALLOWED


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
