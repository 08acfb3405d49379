"""What SIGUSR1 logs: statistics, and the stack of every thread and task."""

from __future__ import annotations

import json
import linecache
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import trio

from deferfs.contract.statistics import Statistics, encode


def report(statistics: Statistics) -> Iterator[str]:
    """Lines for the log."""
    yield f"statistics: {json.dumps(encode(statistics))}"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"thread {names.get(ident, ident)}:"
        for entry in traceback.extract_stack(frame):
            yield f"  {entry.filename}:{entry.lineno} {entry.name}: {entry.line}"
    root = trio.lowlevel.current_root_task()
    if root is not None:
        yield from _tasks(root, 0)


def _tasks(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}task {task.name}:"
    for frame in _frames(task.coro):
        code = frame.f_code
        line = linecache.getline(code.co_filename, frame.f_lineno).strip()
        yield f"{'  ' * depth}  {code.co_filename}:{frame.f_lineno} {code.co_name}: {line}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child, depth + 1)


def _frames(awaited: Any) -> Iterator[FrameType]:
    """From the outermost coroutine to the one that waits; Cython's coroutines have no frames."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None)
