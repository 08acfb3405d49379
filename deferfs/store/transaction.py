"""What the journal keeps of its transactions and of those that wait for log space; its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deferfs.ondisk.format import Block


class Transaction:
    """A compound transaction: all operations applied since the one before was frozen."""

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
    """No driver waits."""


class Grant:
    """A place in the queue for log space. `granted` credits are set aside until the operation joins or gives up.

    `outer` is a grant that whoever asks holds already and keeps while it waits for this one: an inactivation that runs
    inside of an operation which reclaims memory. `refused` when the wait could never end. A driver that waits may set
    `wake`, which is called once, when it is either.
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
    """Log occupancy in blocks, and totals since the mount."""

    blocks: int
    used_blocks: int
    running_blocks: int
    pending_home: int
    tid: int
    committed_tid: int
    commits_total: int
    checkpoints_total: int
    write_backs_total: int
    single_barrier_commits_total: int
    blocks_logged_total: int
    revokes_total: int
    aborted: str
