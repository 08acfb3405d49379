"""Tests that mount, in several processes at once: which of them wait for which."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests import side_by_side
from tests.side_by_side import Turns


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Turns, Turns]]:
    """As two processes have them."""
    ours, theirs = Turns(tmp_path), Turns(tmp_path)
    yield ours, theirs
    ours.close()
    theirs.close()


def is_free(lock: Path, kind: int) -> bool:
    """Whether another process could take it at once."""
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_tests_run_beside_each_other_but_not_beside_one_that_is_alone(two: tuple[Turns, Turns], tmp_path: Path) -> None:
    ours, theirs = two
    with ours.turn(alone=False), theirs.turn(alone=False):
        assert not is_free(tmp_path / "floor", fcntl.LOCK_EX)
    with ours.turn(alone=True):
        assert not is_free(tmp_path / "floor", fcntl.LOCK_SH)
    assert is_free(tmp_path / "floor", fcntl.LOCK_EX)


def test_a_test_that_wants_to_be_alone_is_next(two: tuple[Turns, Turns], tmp_path: Path) -> None:
    """While it waits for the one that runs, no other begins."""
    ours, theirs = two
    order: list[str] = []

    def alone() -> None:
        with theirs.turn(alone=True):
            order.append("alone")

    with ours.turn(alone=False):
        waiting = threading.Thread(target=alone)
        waiting.start()
        while is_free(tmp_path / "gate", fcntl.LOCK_SH):
            assert waiting.is_alive()
        order.append("the one that runs ends")
    with ours.turn(alone=False):
        order.append("the next")
    waiting.join()
    assert order == ["the one that runs ends", "alone", "the next"]


def test_a_process_that_a_test_leaves_keeps_no_lock(two: tuple[Turns, Turns], tmp_path: Path) -> None:
    ours, _ = two
    until, end = os.pipe()
    with ours.turn(alone=True):
        left = os.fork()
        if left == 0:
            os.close(end)
            os.read(until, 1)
            os._exit(0)
    try:
        assert is_free(tmp_path / "floor", fcntl.LOCK_EX)
    finally:
        os.close(end)
        os.close(until)
        os.waitpid(left, 0)


def test_dropping_the_kernels_caches_needs_the_mark() -> None:
    with pytest.raises(pytest.fail.Exception, match="needs the mark `machine`"):
        side_by_side.check_alone("dropping the kernel's caches")


@dataclass(frozen=True)
class Item:
    """As much of a pytest.Item as its place in the order depends on."""

    name: str
    path: Path
    marks: tuple[str, ...] = ()

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None


def test_modules_with_a_test_that_is_alone_come_first_and_then_those_of_many_tests() -> None:
    few, many, alone, left_out = (Path(name) for name in ("few", "many", "alone", "left out"))
    items = [Item("a", few), Item("b", many), Item("c", left_out, ("machine", "skip")), Item("d", alone)]
    items += [Item("e", many), Item("f", alone, ("machine",))]
    side_by_side.put_in_order(cast("list[pytest.Item]", items))
    assert "".join(item.name for item in items) == "dfbeac"
