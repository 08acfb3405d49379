"""The reclaim context: code that runs because memory is being reclaimed must not wait.

FORGET, RELEASE and direct reclaim enter it; every wait of the driver calls `might_wait`. In the context a wait for log
space, memory or IO is a violation: always counted, with the stack of the first of each kind, and fatal when `strict` is
set (in tests, under `deferred`). The same calls feed the graph of lock classes (`lockdep.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import Final

from deferfs.reclaim import lockdep
from deferfs.reclaim.lockdep import Held, LockDep, Stack, format_stack, take_stack

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
"""The lock class of each kind of wait. `gc` has none: under `inline` the waiting task does the cleanup itself, and the
waits of that are reported one by one."""


_ONE_WAY_IN: Final = frozenset({"forget", "release", "inodegc times", "background reclaim"})
"""Frequent entries and holds that always have the same stack: taking it each time would cost more than what they are
for."""


class ReclaimViolation(AssertionError):
    """Code in reclaim context was about to wait."""


class _Holding:
    """Lock classes that are held while a body runs; a payment of access times takes one for each block."""

    __slots__ = ("_lockdep", "_names", "_tokens", "_way_in", "_why")

    def __init__(self, graph: LockDep, why: str, names: tuple[str, ...], way_in: Stack | None) -> None:
        self._lockdep, self._why, self._names, self._way_in = graph, why, names, way_in
        self._tokens: list[Token[Held | None]] = []

    def __enter__(self) -> None:
        for name in self._names:
            self._tokens.append(self._lockdep.hold(name, self._why, self._way_in))

    def __exit__(self, *error: object) -> None:
        while self._tokens:
            self._lockdep.release(self._tokens.pop())


class ReclaimChecker:
    """Counts violations as `context:wait`, for example `forget:log`, and calls `on_violation` for each."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.lockdep = LockDep(strict=strict)
        self.violations: Counter[str] = Counter()
        self.on_violation: Callable[[str], None] = _ignored
        self._stacks: dict[str, Stack] = {}
        """The stack of the first violation of each kind."""
        self._ways_in: dict[str, Stack] = {}
        """The stacks of those in `_ONE_WAY_IN`."""

    @contextmanager
    def enter(self, name: str) -> Iterator[None]:
        """Run the body in reclaim context `name`."""
        token = _context.set(name)
        held = self.lockdep.hold(lockdep.FS_RECLAIM, name, self._way_in(name))
        try:
            yield
        finally:
            self.lockdep.release(held)
            _context.reset(token)

    def holding(self, why: str, *names: str) -> AbstractContextManager[None]:
        """Hold lock classes while the body runs: other tasks may be waiting for it."""
        return _Holding(self.lockdep, why, names, self._way_in(why))

    def _way_in(self, name: str) -> Stack | None:
        """The known stack of one in `_ONE_WAY_IN`; None when it has to be taken."""
        stack = self._ways_in.get(name)
        if stack is None and name in _ONE_WAY_IN:
            stack = self._ways_in[name] = take_stack()
        return stack

    def might_wait(self, kind: str) -> None:
        """To be called before each wait; `kind` is what is waited for. ReclaimViolation when `strict`."""
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
        """To be called at the top of slow paths, where a wait for `kind` may follow: records the order of lock classes
        even if the wait does not happen, and is never a violation."""
        name = _CLASSES.get(kind)
        if name is not None:
            self.lockdep.want(name, kind)

    @property
    def violations_total(self) -> int:
        return sum(self.violations.values())

    def report(self) -> Iterator[str]:
        """A report for people: the lock classes, and where reclaim has waited."""
        yield from self.lockdep.report()
        for violation, count in self.violations.most_common():
            yield f"wait in reclaim context: {violation}  {count} times, first in:"
            yield from format_stack(self._stacks[violation])


def _ignored(violation: str) -> None:
    """Default of `on_violation`."""
