"""The model of access times: the older one, then what a process was told, never a third one."""

from __future__ import annotations

import pytest

from deferfs.crash.access_times import AccessTimes
from deferfs.crash.model import Node
from deferfs.ondisk.inode import Inode

INO = 9


def node(atime: int, generation: int = 3) -> Node:
    return Node(0o100644, times=(atime, 1, 1, 1), generation=generation)


def record(atime: int, generation: int = 3, crtime: int = 1) -> Inode:
    found = Inode(INO, 0o100644, generation)
    found.atime, found.crtime = atime, crtime
    return found


@pytest.fixture
def times() -> AccessTimes:
    """An inode with the recorded time 100 owes 200."""
    times = AccessTimes()
    times.accessed(INO, 100, 200)
    return times


def test_the_older_time_may_stay_for_a_while(times: AccessTimes) -> None:
    assert times.recorded(INO, node(100), record(100)) == ""
    assert times.owed == {INO: 200}


def test_an_access_time_that_was_shown_is_written_once(times: AccessTimes) -> None:
    assert times.recorded(INO, node(100), record(200)) == ""
    assert times.owed == {}
    assert "neither the older 200" in times.recorded(INO, node(200), record(100))


@pytest.mark.parametrize("atime", [0, 99, 101, 199, 201])
def test_an_access_time_is_one_of_two(times: AccessTimes, atime: int) -> None:
    assert f"access time {atime}, neither" in times.recorded(INO, node(100), record(atime))


def test_a_time_that_is_set_voids_what_is_owed(times: AccessTimes) -> None:
    times.set(INO, 5)
    assert times.recorded(INO, node(100), record(5)) == ""
    assert times.owed == {}
    times.set(INO, 6)
    assert "where 6 was set" in times.recorded(INO, node(5), record(7))


def test_access_times_never_go_back(times: AccessTimes) -> None:
    times.accessed(INO, 100, 150)
    assert times.owed == {INO: 200}
    again = AccessTimes()
    again.accessed(INO, 300, 150)
    assert again.owed == {}, "the record has a later one"


def test_a_new_inode_begins_with_its_own_time(times: AccessTimes) -> None:
    assert times.recorded(INO, None, record(7, crtime=7)) == ""
    assert times.owed == {}
    assert "of another" in times.recorded(INO, None, record(200, crtime=7))


def test_an_inode_keeps_its_generation(times: AccessTimes) -> None:
    assert "generation 4 instead of 3" in times.recorded(INO, node(100), record(100, generation=4))


def test_deleted_inodes_owe_no_access_time(times: AccessTimes) -> None:
    times.drop(INO)
    times.drop(INO)
    assert times.owed == {}
