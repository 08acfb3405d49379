"""Many tasks, sequentially or in parallel: until the time is over, or a failure is found.

The tasks are numbered, and a campaign reports a prefix of them in order: so the result of N tasks is the same however
many processes or machines took part, and in whatever order their results arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Final

import msgspec

from deferfs.crash.exploration import Finding, Result, Task, run_task, tally_from_dict
from deferfs.crash.explorer import Tally
from deferfs.errors import EnvironmentProblem, UsageError

CONNECT_SECONDS_MAX: Final = 10
"""Timeout of the connection to a scheduler."""
_AHEAD: Final = 3
"""Tasks submitted per process, so that none is idle."""


@dataclass(slots=True)
class Summary:
    """The combined results of the tasks so far. `next_seed` is that of the first task not counted."""

    tally: Tally = field(default_factory=Tally)
    tasks: int = 0
    next_seed: int = 0
    finding: Finding | None = None


def numbered(first: Task, count: int | None) -> Iterator[Task]:
    """`first` and those after it, `count` in all or without end."""
    seed = first.seed
    while count is None or seed < first.seed + count:
        yield msgspec.structs.replace(first, seed=seed)
        seed += 1


def run_campaign(
    tasks: Iterator[Task],
    *,
    executor: Executor | None = None,
    jobs: int = 1,
    go_on: Callable[[], bool] = lambda: True,
    progress: Callable[[Summary], None] = lambda summary: None,
    summary: Summary | None = None,
) -> Summary:
    """Run the tasks in order, in this process or by an executor, while `go_on()` is True and nothing fails. Results are
    added to `summary`, which tells how far an interrupted campaign got."""
    summary = summary or Summary()
    results = _serially(tasks, go_on) if executor is None else _side_by_side(tasks, executor, jobs * _AHEAD, go_on)
    for result in results:
        summary.tally.add(tally_from_dict(result.tally))
        summary.tasks += 1
        summary.next_seed = result.task.seed + 1
        progress(summary)
        if result.finding is not None:
            summary.finding = result.finding
            break
    return summary


def _serially(tasks: Iterator[Task], go_on: Callable[[], bool]) -> Iterator[Result]:
    for task in tasks:
        yield run_task(task)
        if not go_on():
            break


def _side_by_side(tasks: Iterator[Task], executor: Executor, ahead: int, go_on: Callable[[], bool]) -> Iterator[Result]:
    """The results in the order of the tasks."""
    waiting: list[Future[Result]] = []
    try:
        for task in tasks:
            waiting.append(executor.submit(run_task, task))
            while len(waiting) >= ahead or (waiting and waiting[0].done()):
                wait(waiting[:1], return_when=FIRST_COMPLETED)
                yield waiting.pop(0).result()
            if not go_on():
                break
        # tasks that have not begun are cancelled when the time is over
        while waiting and (go_on() or not waiting[0].cancel()):
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


def processes(jobs: int) -> AbstractContextManager[Executor | None]:
    """A pool of `jobs` processes of this machine; None, to work in this one, for a single job."""
    if jobs == 1:
        return nullcontext(None)
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


def cluster(address: str) -> AbstractContextManager[Executor]:
    """The workers of the Dask scheduler at `address`. The task of a lost worker is run again by another one.

    EnvironmentProblem without the packages of `deferfs[cluster]`, UsageError when no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise EnvironmentProblem("--scheduler needs Dask: pip install 'deferfs[cluster]'") from error
    try:
        client: Any = Client(address, timeout=CONNECT_SECONDS_MAX)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {address}: {error}") from error
    return _ClusterExecutor(client)


class _ClusterExecutor(AbstractContextManager[Executor]):
    """The executor of a client, which is closed with it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __enter__(self) -> Executor:
        executor = self._client.get_executor(pure=False, retries=3)
        assert isinstance(executor, Executor)
        return executor

    def __exit__(self, *_: object) -> None:
        self._client.close()
