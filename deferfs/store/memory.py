"""One budget for in-core inodes and cached blocks.

**Invariant:** `used` is the sum of what the accounts report now. A plan starts only while `used` is within the limit
(operations of inactivation may draw on the reserve above it), so the excess is bounded by what one operation brings in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DIRTY_FRACTION = 4
"""An operation that changes something waits for write-back while more than a quarter of the budget is dirty."""


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
    """Accounts by name: functions that return resident bytes, and how many of them could go."""

    def __init__(self, limit_bytes: int) -> None:
        self.reserve_bytes = limit_bytes // 16
        self.limit_bytes = limit_bytes
        self.accounts: dict[str, Callable[[], int]] = {}
        self.shrinkable: dict[str, Callable[[], int]] = {}
        self.dirty: Callable[[], int] = _nothing
        """Bytes that become shrinkable when they have been written home."""

    def add_account(self, name: str, used: Callable[[], int], shrinkable: Callable[[], int] | None = None) -> None:
        """`shrinkable` returns how much of what is used a shrinker could give back; without it, nothing."""
        self.accounts[name] = used
        if shrinkable is not None:
            self.shrinkable[name] = shrinkable

    def set_limit(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.reserve_bytes = limit_bytes // 16

    @property
    def used(self) -> int:
        total = 0
        for account in self.accounts.values():
            total += account()
        return total

    def excess(self, *, reserve: bool) -> int:
        """Bytes over what an operation may find in use (the limit less the reserve, or the whole limit), as far as
        shrinkers can give them back without a wait. What is dirty or held by the kernel cannot be freed by direct
        reclaim."""
        over = self.used - (self.limit_bytes if reserve else self.limit_bytes - self.reserve_bytes)
        if over <= 0:
            return 0
        to_be_had = 0
        for account in self.shrinkable.values():
            to_be_had += account()
        return min(over, to_be_had)

    @property
    def too_dirty(self) -> bool:
        """Whether more than its share of the budget waits to be written home."""
        return self.dirty() > self.dirty_bytes_max

    @property
    def dirty_bytes_max(self) -> int:
        """How much may be dirty before operations that change something wait."""
        return self.limit_bytes // DIRTY_FRACTION

    def statistics(self) -> MemoryStatistics:
        return MemoryStatistics(
            self.limit_bytes,
            self.reserve_bytes,
            self.used,
            {name: account() for name, account in self.accounts.items()},
        )
