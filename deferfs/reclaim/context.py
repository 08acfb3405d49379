"""The reclaim context: code that runs because memory is being reclaimed must not wait.

FORGET, RELEASE and direct reclaim enter it; every wait of the driver calls `might_wait`. In the context a wait for log
space, memory or IO is a violation: counted always, with the stack of the first of its kind, fatal where `strict` is set
(the tests, under the deferred policy). The same calls feed the graph of lock classes (`lockdep.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from deferfs.reclaim import lockdep
from deferfs.reclaim.lockdep import LockDep, Stack, format_stack, take_stack

_context: ContextVar[str] = ContextVar("deferfs_reclaim_context", default="")

_CLASSES: Final = {
    "log": lockdep.LOG_SPACE,
    "memory": lockdep.FS_RECLAIM,
    "io": lockdep.IO,
    "space": lockdep.GC_DRAIN,
    "throttle": lockdep.GC_DRAIN,
    "drain": lockdep.GC_DRAIN,
    "thaw": lockdep.THAW,
    "commit": lockdep.COMMIT,
    "checkpoint": lockdep.CHECKPOINT,
}
"""What a wait is for, as a lock class. `gc` has none: inline, who waits does the cleanup himself, and what that waits
for is announced for itself."""


_ONE_WAY_IN: Final = frozenset({"forget", "release"})
"""The kernel's requests, which come often, and by the same few calls: taking the stack of each would cost more than
handling it."""


class ReclaimViolation(AssertionError):
    """Something in reclaim context was about to wait."""


class ReclaimChecker:
    """Counts violations by `context:wait`, for example `forget:log`. `on_violation` is told of each."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.lockdep = LockDep(strict=strict)
        self.violations: Counter[str] = Counter()
        self.on_violation: Callable[[str], None] = _nobody
        self._stacks: dict[str, Stack] = {}
        """Where the first violation of each kind was."""
        self._ways_in: dict[str, Stack] = {}
        """The stacks of entries that are always the same."""

    @contextmanager
    def enter(self, name: str) -> Iterator[None]:
        """Everything below is reclaim, entered by way of `name`."""
        token = _context.set(name)
        stack = self._ways_in.get(name)
        if stack is None and name in _ONE_WAY_IN:
            stack = self._ways_in[name] = take_stack()
        held = self.lockdep.hold(lockdep.FS_RECLAIM, name, stack)
        try:
            yield
        finally:
            self.lockdep.release(held)
            _context.reset(token)

    @contextmanager
    def holding(self, why: str, *names: str) -> Iterator[None]:
        """Others may be waiting for the task, for these lock classes, while it does what is inside."""
        tokens = [self.lockdep.hold(name, why) for name in names]
        try:
            yield
        finally:
            for token in reversed(tokens):
                self.lockdep.release(token)

    def might_wait(self, kind: str) -> None:
        """Called before each wait; `kind` is what is waited for."""
        self.might_need(kind)
        context = _context.get()
        if context:
            violation = f"{context}:{kind}"
            self.violations[violation] += 1
            if violation not in self._stacks:
                self._stacks[violation] = take_stack()
            self.on_violation(violation)
            if self.strict:
                raise ReclaimViolation(f"waiting for {kind} in reclaim context {context}")

    def might_need(self, kind: str) -> None:
        """Called where a wait for `kind` may follow, at the top of slow paths: it proves the order of lock classes
        whether or not the wait comes about, and is no violation."""
        name = _CLASSES.get(kind)
        if name is not None:
            self.lockdep.want(name, kind)

    @property
    def violations_total(self) -> int:
        return sum(self.violations.values())

    def report(self) -> Iterator[str]:
        """Lines for people: the lock classes, and where reclaim has waited."""
        yield from self.lockdep.report()
        for violation, count in self.violations.most_common():
            yield f"wait in reclaim context: {violation}  {count} times, first in:"
            yield from format_stack(self._stacks[violation])


def _nobody(violation: str) -> None:
    """Nobody is told."""
