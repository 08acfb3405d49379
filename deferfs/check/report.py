"""What a check hands out: numbered problems and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from deferfs.check.catalogue import Kind
from deferfs.ondisk.superblock import Superblock

PROBLEMS_PER_KIND: Final = 200
"""Problems of one kind that are kept one by one; the rest is only counted, so that an image that is
wrong everywhere cannot exhaust memory.
"""

Where = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `where` names inodes, blocks, slots: whatever helps to find it."""

    number: int
    code: str
    message: str
    where: Where


@dataclass(frozen=True, slots=True)
class Counts:
    """What the image holds, orphans included. `blocks_used` counts what is claimed, `free_blocks`
    what the bitmaps call free.
    """

    inodes: int = 0
    directories: int = 0
    wide_directories: int = 0
    """Of these, the ones with 55-bit hashes: their readdir offsets take 64 bits."""
    files: int = 0
    symlinks: int = 0
    others: int = 0
    orphans: int = 0
    blocks_used: int = 0
    free_blocks: int = 0
    transactions: int = 0
    """Transactions in the log, replayed only in memory."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a check. `problems` come in the order they were found, at most
    PROBLEMS_PER_KIND of a kind; `suppressed` counts the others by code. `complete` is false when
    damage kept structures from being checked.
    """

    superblock: Superblock
    counts: Counts
    problems: tuple[Problem, ...]
    suppressed: Mapping[str, int] = field(default_factory=dict)
    complete: bool = True

    @property
    def clean(self) -> bool:
        """Whether nothing at all was found."""
        return not self.problems

    @property
    def found(self) -> int:
        """Number of problems, suppressed ones included."""
        return len(self.problems) + sum(self.suppressed.values())


class Findings:
    """Collects problems while a check runs."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.totals: dict[Kind, int] = {}

    def add(self, kind: Kind, detail: str, **where: int) -> None:
        """Record a problem. `detail` starts with the place: "inode 12: ..."."""
        total = self.totals[kind] = self.totals.get(kind, 0) + 1
        if total <= PROBLEMS_PER_KIND:
            self.problems.append(Problem(kind.number, kind.code, detail, where))

    @property
    def suppressed(self) -> dict[str, int]:
        """Problems that were only counted, by code."""
        return {
            kind.code: total - PROBLEMS_PER_KIND for kind, total in self.totals.items() if total > PROBLEMS_PER_KIND
        }
