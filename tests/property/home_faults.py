"""Planted faults of images that are brought home for their memory alone; see `faults`."""

from __future__ import annotations

import pytest

from deferfs.store import checkpoint
from deferfs.store.io import Flush, Job
from deferfs.store.journal import Journal
from tests.property.faults import fault
from tests.property.spill_faults import FAULTS

__all__ = ["FAULTS"]


@fault("home_for_memory")
def the_log_is_given_back_with_the_memory(patch: pytest.MonkeyPatch) -> None:
    """Its space is written again while the superblock names the old tail, and the images may not be durable."""
    original = checkpoint._bring_home

    def bring_home(journal: Journal) -> Job[int]:
        count = len(journal.committed)
        result = yield from original(journal)
        journal.advance(count)
        return result

    patch.setattr(checkpoint, "_bring_home", bring_home)


@fault("reuse_while_coming_home")
def freed_blocks_are_used_again_while_they_come_home(patch: pytest.MonkeyPatch) -> None:
    """A write that is on its way meets the next owner of the block."""
    original = checkpoint._bring_home

    def bring_home(journal: Journal) -> Job[int]:
        journal.end_checkpoint()
        return (yield from original(journal))

    patch.setattr(checkpoint, "_bring_home", bring_home)


@fault("home_for_memory")
def nothing_is_written_for_memory(patch: pytest.MonkeyPatch) -> None:
    """The log has it all, and what is read again comes from home."""

    def bring_home(journal: Journal) -> Job[int]:
        for address, image in list(journal.pending_home.items()):
            journal.came_home(address, [image])
        yield Flush()
        return 0

    patch.setattr(checkpoint, "_bring_home", bring_home)
