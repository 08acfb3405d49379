"""Evict policies, which differ only in the task that waits for an inactivation.

`dispose` is called with inodes in NEED_INACTIVE. The caller must inactivate those that it returns before it continues.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Protocol

from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import InCoreInode


class EvictPolicy(Protocol):
    """Decides which task waits for an inactivation."""

    name: ClassVar[str]
    waits: ClassVar[bool]
    """Whether the source of the eviction waits for the inactivation."""

    def dispose(self, inodes: Iterable[InCoreInode]) -> list[InCoreInode]: ...


class Inline:
    """The handler of FORGET or RELEASE, or the operation in direct reclaim, runs the inactivation and waits for it."""

    name: ClassVar[str] = "inline"
    waits: ClassVar[bool] = True

    def __init__(self, gc: InodeGc) -> None:
        self.gc = gc

    def dispose(self, inodes: Iterable[InCoreInode]) -> list[InCoreInode]:
        return list(inodes)


class Deferred:
    """Inodes are enqueued under a passive reference; the source of the eviction never waits."""

    name: ClassVar[str] = "deferred"
    waits: ClassVar[bool] = False

    def __init__(self, gc: InodeGc) -> None:
        self.gc = gc

    def dispose(self, inodes: Iterable[InCoreInode]) -> list[InCoreInode]:
        for inode in inodes:
            self.gc.enqueue(inode)
        return []


POLICIES: dict[str, type[Inline] | type[Deferred]] = {"inline": Inline, "deferred": Deferred}


def make_policy(name: str, gc: InodeGc) -> EvictPolicy:
    """The policy called `name`; ValueError when there is none."""
    try:
        return POLICIES[name](gc)
    except KeyError:
        raise ValueError(f"evict must be one of {', '.join(sorted(POLICIES))}, not {name!r}") from None
