"""One memory budget for in-core inodes and cached blocks.

**Invariant:** `used` is the sum of what the accounts report now. A plan starts only while `used` is within the limit
(cleanups may draw on the reserve above it), and blocks that are fetched take the place of clean ones once the budget is
used up: the excess is what cannot be evicted (dirty blocks, inodes that the kernel refers to) and what one operation
changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DIRTY_FRACTION = 4
"""Operations that change something wait for writeback while more than this fraction of the budget is dirty: 1/4."""


def _nothing() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """The budget and what is used of it, by account; bytes."""

    budget_bytes: int
    reserve_bytes: int
    used_bytes: int
    accounts: dict[str, int]


class Memory:
    """Accounts by name: functions that return resident bytes, and how many of these are shrinkable."""

    def __init__(self, limit_bytes: int) -> None:
        self.reserve_bytes = limit_bytes // 16
        self.limit_bytes = limit_bytes
        self.accounts: dict[str, Callable[[], int]] = {}
        self.shrinkable: dict[str, Callable[[], int]] = {}
        self.dirty: Callable[[], int] = _nothing
        """Bytes that become shrinkable once written home."""
        self.on_limit: list[Callable[[], None]] = []
        """Called when the budget has changed: by what keeps a limit that is a share of it."""

    def add_account(self, name: str, used: Callable[[], int], shrinkable: Callable[[], int] | None = None) -> None:
        """Add an account, in bytes. `shrinkable`: what a shrinker could free of it; without it, nothing."""
        self.accounts[name] = used
        if shrinkable is not None:
            self.shrinkable[name] = shrinkable

    def set_limit(self, limit_bytes: int) -> None:
        """Set the budget."""
        self.limit_bytes = limit_bytes
        self.reserve_bytes = limit_bytes // 16
        for follow in self.on_limit:
            follow()

    @property
    def used(self) -> int:
        total = 0
        for account in self.accounts.values():
            total += account()
        return total

    def excess(self, *, reserve: bool) -> int:
        """Bytes over the limit of an operation (the budget less the reserve, or with `reserve` all of it), but only as
        far as shrinkers can free them without a wait: direct reclaim cannot free dirty memory, nor inodes that the
        kernel refers to."""
        over = self.used - (self.limit_bytes if reserve else self.limit_bytes - self.reserve_bytes)
        if over <= 0:
            return 0
        to_be_had = 0
        for account in self.shrinkable.values():
            to_be_had += account()
        return min(over, to_be_had)

    @property
    def too_dirty(self) -> bool:
        """Whether dirty memory exceeds its share of the budget."""
        return self.dirty() > self.dirty_bytes_max

    @property
    def dirty_bytes_max(self) -> int:
        """Dirty bytes above which operations that change something wait."""
        return self.limit_bytes // DIRTY_FRACTION

    def statistics(self) -> MemoryStatistics:
        return MemoryStatistics(
            self.limit_bytes,
            self.reserve_bytes,
            self.used,
            {name: account() for name, account in self.accounts.items()},
        )
