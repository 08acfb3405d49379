from __future__ import annotations

import contextvars

import pytest

from deferfs.reclaim import context, lockdep
from deferfs.reclaim.context import ReclaimChecker, ReclaimViolation
from deferfs.reclaim.lockdep import COMMIT, GC_DRAIN, LOG_SPACE, Stack


def test_outside_of_reclaim_anything_may_wait() -> None:
    checker = ReclaimChecker(strict=True)
    for kind in ("log", "memory", "io"):
        checker.might_wait(kind)
    assert checker.violations_total == 0


def test_every_wait_in_reclaim_is_counted() -> None:
    checker = ReclaimChecker()
    with checker.enter("forget"):
        checker.might_wait("log")
        checker.might_wait("log")
        with checker.enter("direct_reclaim"):
            checker.might_wait("io")
        checker.might_wait("memory")
    checker.might_wait("log")
    assert checker.violations == {"forget:log": 2, "direct_reclaim:io": 1, "forget:memory": 1}
    assert checker.violations_total == 4


def test_strict_is_fatal() -> None:
    checker = ReclaimChecker(strict=True)
    with checker.enter("forget"), pytest.raises(ReclaimViolation, match="waiting for log in reclaim context forget"):
        checker.might_wait("log")
    assert checker.violations_total == 1


def test_the_context_ends_with_an_exception_too() -> None:
    checker = ReclaimChecker(strict=True)
    with pytest.raises(KeyError), checker.enter("forget"):
        raise KeyError
    checker.might_wait("log")


def test_another_task_is_not_in_it() -> None:
    checker = ReclaimChecker()
    outside = contextvars.copy_context()
    with checker.enter("forget"):
        outside.run(checker.might_wait, "log")
        contextvars.copy_context().run(checker.might_wait, "io")
    assert checker.violations == {"forget:io": 1}


def test_reclaim_is_a_lock_class() -> None:
    checker = ReclaimChecker()
    with checker.enter("forget"):
        checker.might_need("log")
    with checker.holding("reservation", LOG_SPACE):
        checker.might_need("memory")
    assert [[edge.held for edge in cycle] for cycle in checker.lockdep.cycles] == [["fs_reclaim", "log_space"]]
    assert checker.violations_total == 0  # no wait yet


def test_a_lock_class_is_released_by_an_exception_too() -> None:
    checker = ReclaimChecker()
    with pytest.raises(KeyError), checker.holding("commit", COMMIT, LOG_SPACE):
        raise KeyError
    assert not checker.lockdep.holds(COMMIT)
    assert not checker.lockdep.holds(LOG_SPACE)


def test_violations_are_told_and_reported_with_the_first_stack() -> None:
    checker = ReclaimChecker()
    told: list[str] = []
    checker.on_violation = told.append
    with checker.enter("forget"):
        checker.might_wait("log")
        checker.might_wait("log")
    assert told == ["forget:log"] * 2
    assert "wait in reclaim context: forget:log  2 times, first in:" in list(checker.report())


def test_the_stack_of_a_frequent_hold_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Stack] = []

    def take_stack() -> Stack:
        taken.append(())
        return ()

    for module in (context, lockdep):
        monkeypatch.setattr(module, "take_stack", take_stack)
    checker = ReclaimChecker()
    for _ in range(3):
        with checker.holding("inodegc times", GC_DRAIN):
            pass
        with checker.enter("forget"):
            pass
    assert len(taken) == 2
    with checker.holding("inodegc worker", GC_DRAIN):
        pass
    assert len(taken) == 3
