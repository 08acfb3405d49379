from __future__ import annotations

import contextvars

import pytest

from deferfs.reclaim.context import ReclaimChecker, ReclaimViolation


def test_outside_of_reclaim_anything_may_wait() -> None:
    checker = ReclaimChecker(strict=True)
    for kind in ("log", "memory", "io"):
        checker.might_wait(kind)
    assert checker.violations_total == 0


def test_in_reclaim_every_wait_is_counted() -> None:
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
