"""The reclaim context: code that runs because memory is being reclaimed must not wait.

FORGET, RELEASE and direct reclaim enter it; every wait of the driver calls `might_wait`. In the context a wait for log
space, memory or IO is a violation: counted always, fatal where `strict` is set (the tests, under the deferred policy).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_context: ContextVar[str] = ContextVar("deferfs_reclaim_context", default="")


class ReclaimViolation(AssertionError):
    """Something in reclaim context was about to wait."""


class ReclaimChecker:
    """Counts violations by `context:wait`, for example `forget:log`."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.violations: Counter[str] = Counter()

    @contextmanager
    def enter(self, name: str) -> Iterator[None]:
        """Everything below is reclaim, entered by way of `name`."""
        token = _context.set(name)
        try:
            yield
        finally:
            _context.reset(token)

    def might_wait(self, kind: str) -> None:
        """Called before each wait; `kind` is what is waited for."""
        context = _context.get()
        if context:
            self.violations[f"{context}:{kind}"] += 1
            if self.strict:
                raise ReclaimViolation(f"waiting for {kind} in reclaim context {context}")

    @property
    def violations_total(self) -> int:
        return sum(self.violations.values())
