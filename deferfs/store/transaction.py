"""Transactions, grants of log space, and the statistics of the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deferfs.ondisk.format import Block


class Transaction:
    """A compound transaction: all operations applied since the previous one was frozen."""

    __slots__ = (
        "data_inodes", "freed", "images", "inodes", "log_blocks", "ordered_data", "revokes", "start", "tid",
    )  # fmt: skip

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self.images: dict[int, Block] = {}
        self.revokes: set[int] = set()
        self.freed: list[tuple[int, int]] = []
        self.inodes: set[int] = set()
        self.data_inodes: set[int] = set()
        self.ordered_data = False
        """File data was written for this transaction: it must be durable before the commit record."""
        self.log_blocks = 0
        self.start = 0

    @property
    def empty(self) -> bool:
        return not self.images and not self.revokes


def _nothing() -> None:
    """Default of `wake`: no driver waits."""


class Grant:
    """A reservation of log space, queued or granted. `granted` credits are reserved until the operation joins or gives
    up.

    `outer` is a grant that the same task holds while it waits for this one: that of an operation which reclaims memory,
    around an inactivation. `refused` is set when the wait could never end. A driver that waits may set `wake`, which is
    called once, when the grant is granted or refused.
    """

    __slots__ = ("credits", "granted", "outer", "refused", "wake")

    def __init__(self, credits: int, outer: Grant | None = None) -> None:
        self.credits = credits
        self.outer = outer
        self.granted = False
        self.refused = False
        self.wake: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """Log occupancy in blocks, and totals since mount."""

    blocks: int
    used_blocks: int
    running_blocks: int
    tid: int
    commits_total: int
    checkpoints_total: int
    write_backs_total: int
    single_barrier_commits_total: int
    blocks_logged_total: int
    revokes_total: int
    aborted: str
