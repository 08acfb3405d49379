"""The life cycle of an in-core inode.

The state is authoritative; reference counts only guard transitions: a state that needs an active reference cannot be
entered without one, and the object is freed only when no passive reference is left.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class State(Enum):
    """A stage in the life cycle of an in-core inode."""

    __hash__ = object.__hash__
    """Members are compared by identity; Enum's own hash is computed in Python, twice for each change of state."""

    NEW = auto()
    """Being set up; not visible to other tasks."""
    LIVE = auto()
    """Has an active reference."""
    IDLE = auto()
    """No active reference; cached for reuse, on the LRU list."""
    NEED_INACTIVE = auto()
    """No active reference, and cleanup is due: the policy decides which task does it. An orphan that is left to the
    orphan table becomes RECLAIMABLE, and comes back in this state."""
    QUEUED = auto()
    """In a queue of inodegc, under a passive reference."""
    INACTIVATING = auto()
    """Its inactivation is running."""
    RECLAIMABLE = auto()
    """Nothing left to do; the object can be freed."""
    FREED = auto()
    """Freed. Final."""
    QUARANTINED = auto()
    """Inactivation failed INACTIVATION_RETRIES_MAX times: only `gc=retry` repeats it. The slot of an orphan is flagged,
    so that the next mount skips it and fsck reports it."""


TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.NEW: frozenset({State.LIVE, State.NEED_INACTIVE}),
    State.LIVE: frozenset({State.IDLE, State.NEED_INACTIVE}),
    State.IDLE: frozenset({State.LIVE, State.NEED_INACTIVE, State.RECLAIMABLE}),
    State.NEED_INACTIVE: frozenset({State.LIVE, State.QUEUED, State.INACTIVATING, State.RECLAIMABLE}),
    State.QUEUED: frozenset({State.LIVE, State.INACTIVATING}),
    State.INACTIVATING: frozenset({State.LIVE, State.NEED_INACTIVE, State.RECLAIMABLE, State.QUARANTINED}),
    State.RECLAIMABLE: frozenset({State.FREED}),
    State.FREED: frozenset(),
    State.QUARANTINED: frozenset({State.NEED_INACTIVE, State.RECLAIMABLE, State.LIVE}),
}


def transition_table() -> str:
    """The table for docs/reclaim.md."""
    rows = ["| state | may become |", "| --- | --- |"]
    for state, following in TRANSITIONS.items():
        names = ", ".join(sorted(s.name for s in following)) or "(final)"
        rows.append(f"| {state.name} | {names} |")
    return "\n".join(rows)
