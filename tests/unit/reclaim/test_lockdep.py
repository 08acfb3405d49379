from __future__ import annotations

import contextvars

import pytest

from deferfs.reclaim.lockdep import FS_RECLAIM, GC_DRAIN, LOG_SPACE, LockDep, LockOrderError


@pytest.fixture
def lockdep() -> LockDep:
    return LockDep()


def chain(lockdep: LockDep, *names: str) -> None:
    """Each class is wanted, then held, inside of the one before."""
    name, *inner = names
    lockdep.want(name, f"to want {name}")
    token = lockdep.hold(name, f"to hold {name}")
    try:
        if inner:
            chain(lockdep, *inner)
    finally:
        lockdep.release(token)


def edges(lockdep: LockDep) -> set[tuple[str, str]]:
    return {(held, wanted) for held, ways in lockdep.edges.items() for wanted in ways}


def cycles(lockdep: LockDep) -> list[list[str]]:
    return [[edge.held for edge in cycle] for cycle in lockdep.cycles]


def test_a_class_wanted_with_nothing_held_makes_no_edge(lockdep: LockDep) -> None:
    lockdep.want(LOG_SPACE, "test")
    chain(lockdep, LOG_SPACE)
    chain(lockdep, FS_RECLAIM)
    assert edges(lockdep) == set()


def test_everything_held_makes_an_edge(lockdep: LockDep) -> None:
    chain(lockdep, "a", "b", "c")
    assert edges(lockdep) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert lockdep.cycles == []


def test_edges_are_counted(lockdep: LockDep) -> None:
    for _ in range(3):
        chain(lockdep, "a", "b")
    assert lockdep.edges["a"]["b"].count == 3
    assert "a -> b  3 times  (to hold a; to want b)" in "\n".join(lockdep.report())


def test_opposite_orders_are_a_cycle_though_no_task_ever_waited(lockdep: LockDep) -> None:
    chain(lockdep, LOG_SPACE, FS_RECLAIM)
    chain(lockdep, FS_RECLAIM, LOG_SPACE)
    assert cycles(lockdep) == [[LOG_SPACE, FS_RECLAIM]]


def test_a_cycle_is_reported_once(lockdep: LockDep) -> None:
    for _ in range(3):
        chain(lockdep, "a", "b")
        chain(lockdep, "b", "a")
    assert len(lockdep.cycles) == 1
    assert "1 cycles" in list(lockdep.report())


def test_a_long_cycle_is_found_by_its_shortest_way(lockdep: LockDep) -> None:
    chain(lockdep, "a", "b")
    chain(lockdep, "b", "c")
    chain(lockdep, "c", "d")
    chain(lockdep, "b", "d")
    chain(lockdep, "d", "a")
    assert cycles(lockdep) == [["a", "b", "d"]]


def test_wanting_what_is_held_is_a_cycle_of_one(lockdep: LockDep) -> None:
    chain(lockdep, LOG_SPACE, LOG_SPACE)
    assert cycles(lockdep) == [[LOG_SPACE]]
    assert "possible circular waiting: log_space -> log_space" in list(lockdep.report())


def test_a_cycle_through_another_class_is_not_reported_as_one_of_one_too(lockdep: LockDep) -> None:
    chain(lockdep, LOG_SPACE, FS_RECLAIM, LOG_SPACE)
    assert cycles(lockdep) == [[LOG_SPACE, FS_RECLAIM]]


def test_both_stacks_of_every_edge_are_shown(lockdep: LockDep) -> None:
    def the_filesystem() -> None:
        chain(lockdep, LOG_SPACE, FS_RECLAIM)

    def the_memory_manager() -> None:
        chain(lockdep, FS_RECLAIM, LOG_SPACE)

    the_filesystem()
    the_memory_manager()
    (cycle,) = lockdep.cycles
    for edge, expected in zip(cycle, ("the_filesystem", "the_memory_manager"), strict=True):
        for stack in (edge.held_stack, edge.wanted_stack):
            assert expected in [code.co_name for code, _ in stack]


def test_strict_is_fatal_for_the_task_that_closes_the_cycle() -> None:
    lockdep = LockDep(strict=True)
    chain(lockdep, "a", "b")
    with pytest.raises(LockOrderError, match="a -> b -> a"):
        chain(lockdep, "b", "a")


def test_held_classes_belong_to_one_task(lockdep: LockDep) -> None:
    other = contextvars.copy_context()
    token = lockdep.hold(GC_DRAIN, "test")
    other.run(lockdep.want, LOG_SPACE, "test")
    assert edges(lockdep) == set()
    contextvars.copy_context().run(lockdep.want, LOG_SPACE, "a task started here")
    assert edges(lockdep) == {(GC_DRAIN, LOG_SPACE)}
    assert lockdep.holds(GC_DRAIN)
    lockdep.release(token)
    assert not lockdep.holds(GC_DRAIN)
