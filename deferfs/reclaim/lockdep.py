"""Lock classes: proof that the waits of the daemon cannot form a cycle, after the kernel's lockdep.

A task *holds* a class while other tasks may wait for it: with a granted log reservation (`log_space`), inside reclaim
(`fs_reclaim`), as the worker that a drain waits for (`gc_drain`), as the commit or checkpoint in progress (`commit`,
`checkpoint`). `hold` records that, `want` that the task is about to wait for a class, or might: called at the top of
slow paths, it records the order even if the wait does not happen, as might_alloc() in the kernel takes and drops
fs_reclaim on every allocation.

Each pair (held, wanted) is an edge of a graph. A cycle is a potential deadlock; it is reported once, with the stacks of
both ends of each of its edges.

**Invariants**
- An edge is in `edges` once it has been seen; its stacks are those of the first time.
- `_known` mirrors `edges` by (held, wanted): a wait whose edges are known costs one look-up for each class held.
- The classes held by a task are a linked list in a context variable, innermost first. A task inherits it when started.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar, Token
from types import CodeType
from typing import Final

CYCLE_TITLE: Final = "possible circular waiting:"
"""First words of the report of a cycle."""
FS_RECLAIM: Final = "fs_reclaim"
"""Held in FORGET, RELEASE, direct and background reclaim; wanted by tasks that may need memory."""
LOG_SPACE: Final = "log_space"
"""Held with a granted reservation; wanted by tasks that reserve."""
GC_DRAIN: Final = "gc_drain"
"""Held by an inodegc worker in a batch; wanted by tasks that wait for cleanups."""
COMMIT: Final = "commit"
"""Held by the commit in progress; wanted by fsync, sync, and tasks that wait for freed blocks."""
CHECKPOINT: Final = "checkpoint"
"""Held by the checkpoint in progress; wanted by tasks that wait for blocks to be written home."""
THAW: Final = "thaw"
"""Held by a task that freezes; wanted by operations that change anything meanwhile."""
IO: Final = "io"
"""The device; held by no task, so it is never part of a cycle."""

STACK_FRAMES_MAX: Final = 18
"""Frames kept of a stack."""
_OWN: Final = ("/reclaim/lockdep.py", "/reclaim/context.py")
"""Frames left out of reports: those of the checker itself."""

Stack = tuple[tuple[CodeType, int], ...]
"""(code, last instruction) of each frame, innermost first: cheap to take, formatted only for a report."""


class LockOrderError(AssertionError):
    """A wait that closes a cycle, when that is fatal."""


class Held:
    """A class held by a task. `why`: its role; `stack`: where it was taken; `outer`: the class held before."""

    __slots__ = ("name", "outer", "stack", "why")

    def __init__(self, name: str, why: str, outer: Held | None, stack: Stack | None = None) -> None:
        self.name = name
        self.why = why
        self.outer = outer
        self.stack = take_stack() if stack is None else stack


class Edge:
    """`wanted` was waited for with `held` held, `count` times; the stacks are those of the first time."""

    __slots__ = ("count", "held", "held_stack", "held_why", "wanted", "wanted_stack", "wanted_why")

    def __init__(self, held: Held, wanted: str, why: str) -> None:
        self.held = held.name
        self.held_why = held.why
        self.held_stack = held.stack
        self.wanted = wanted
        self.wanted_why = why
        self.wanted_stack = take_stack()
        self.count = 1


_held: ContextVar[Held | None] = ContextVar("deferfs_held_classes", default=None)


class LockDep:
    """The graph of one mount. With `strict`, the task that closes a cycle fails."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.edges: dict[str, dict[str, Edge]] = {}
        self._known: dict[tuple[str, str], Edge] = {}
        self.cycles: list[list[Edge]] = []
        """Each as a list of edges that ends with the one that closed it."""

    # --- called by tasks ---
    def hold(self, name: str, why: str, stack: Stack | None = None) -> Token[Held | None]:
        """Hold a class until `release` is called with the token returned.

        This does not imply a wait for it: a task that may wait calls `want` first. `stack` can be passed where it is
        always the same.
        """
        return _held.set(Held(name, why, _held.get(), stack))

    def release(self, token: Token[Held | None]) -> None:
        """End a `hold`: in reverse order of the holds, and in the same task."""
        _held.reset(token)

    def want(self, name: str, why: str) -> None:
        """The task is about to wait for a class, or might. LockOrderError for a cycle when `strict`."""
        held = _held.get()
        innermost = held
        while held is not None:
            edge = self._known.get((held.name, name))
            if edge is not None:
                edge.count += 1
            elif held.name != name or held is innermost:
                # an outer hold of the same class is connected by the edges of the classes taken in between
                self._connect(Edge(held, name, why))
            held = held.outer

    def holds(self, name: str) -> bool:
        """Whether the running task holds the class."""
        held = _held.get()
        while held is not None:
            if held.name == name:
                return True
            held = held.outer
        return False

    # --- the graph ---
    def _connect(self, edge: Edge) -> None:
        path = self._path(edge.wanted, edge.held)
        self.edges.setdefault(edge.held, {})[edge.wanted] = edge
        self._known[edge.held, edge.wanted] = edge
        if path is None:
            return
        self.cycles.append([*path, edge])
        if self.strict:
            raise LockOrderError("\n".join(self.cycle_lines(self.cycles[-1])))

    def _path(self, start: str, end: str) -> list[Edge] | None:
        """The shortest path between two classes; empty when they are the same, None when there is none."""
        ways: dict[str, list[Edge]] = {start: []}
        queue = deque([start])
        while queue:
            name = queue.popleft()
            if name == end:
                return ways[name]
            for wanted, edge in self.edges.get(name, {}).items():
                if wanted not in ways:
                    ways[wanted] = [*ways[name], edge]
                    queue.append(wanted)
        return None

    @property
    def edge_count(self) -> int:
        """Pairs (held, wanted) seen so far."""
        return len(self._known)

    # --- the report ---
    def report(self) -> Iterator[str]:
        """A report for people: classes, edges with their counts, cycles with stacks."""
        edges = sorted(self._known.values(), key=_names)
        classes = sorted({name for edge in edges for name in _names(edge)})
        yield f"lock classes: {', '.join(classes) or 'nothing was held at any wait'}"
        for edge in edges:
            yield f"  {edge.held} -> {edge.wanted}  {edge.count} times  ({edge.held_why}; {edge.wanted_why})"
        for cycle in self.cycles:
            yield ""
            yield from self.cycle_lines(cycle)
        yield f"{len(self.cycles)} cycles"

    def cycle_lines(self, cycle: list[Edge]) -> Iterator[str]:
        """One cycle, edge by edge."""
        names = [cycle[-1].wanted, *(edge.wanted for edge in cycle)] if len(cycle) > 1 else [cycle[0].held] * 2
        yield f"{CYCLE_TITLE} {' -> '.join(names)}"
        for edge in cycle:
            yield f"  {edge.held} is held ({edge.held_why}):"
            yield from format_stack(edge.held_stack)
            yield f"  while {edge.wanted} is wanted ({edge.wanted_why}):"
            yield from format_stack(edge.wanted_stack)


def take_stack() -> Stack:
    """The stack of the running task, including coroutines that await each other."""
    frame = sys._getframe()
    found: list[tuple[CodeType, int]] = []
    while len(found) < STACK_FRAMES_MAX:
        found.append((frame.f_code, frame.f_lasti))
        back = frame.f_back
        if back is None:
            break
        frame = back
    return tuple(found)


def _names(edge: Edge) -> tuple[str, str]:
    return edge.held, edge.wanted


def format_stack(stack: Stack) -> Iterator[str]:
    """Lines, innermost first: only frames of deferfs, if there are any."""
    own = False
    for code, instruction in stack:
        start = code.co_filename.rfind("/deferfs/")
        if start >= 0 and not code.co_filename.endswith(_OWN):
            own = True
            yield f"    {code.co_filename[start + 1 :]}:{_line_of(code, instruction)} {code.co_qualname}"
    if not own:
        yield "    (compiled code)"


def _line_of(code: CodeType, instruction: int) -> int:
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
