"""What a twin's comparison finds that no operation has shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deferfs.crash.model import ROOT
from deferfs.crash.twin import Twin
from deferfs.crash.twin_error import TwinError
from deferfs.crash.world import Shape, World


@pytest.fixture
def twin() -> Twin:
    """With a file."""
    twin = World(Shape()).twin
    assert twin.create(ROOT, b"a", 0o100644) is not None
    twin.verify()
    return twin


def _count_a_free_block_more(twin: Twin) -> None:
    twin.volume.store.space.counts[0] += 1


def _count_a_pending_block_more(twin: Twin) -> None:
    twin.volume.inodes.pending_blocks += 1


def _hold_log_space(twin: Twin) -> None:
    twin.volume.store.journal.granted_credits += 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_count_a_free_block_more, "group 0 counts"),
        (_count_a_pending_block_more, "1 are pending"),
        (_hold_log_space, "are held for some"),
    ],
)
def test_a_wrong_count_is_found(twin: Twin, change: Callable[[Twin], None], problem: str) -> None:
    change(twin)
    with pytest.raises((TwinError, AssertionError), match=problem):
        twin.verify()


def test_a_file_that_the_model_does_not_have_is_found(twin: Twin) -> None:
    twin.model = World(Shape()).twin.model
    with pytest.raises(TwinError, match="volume and model differ"):
        twin.verify()
