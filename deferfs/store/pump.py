"""Driving a generator of requests: the only code that sends answers, throws errors, and takes the result.

A *job* yields requests, is sent the answer or has the error thrown into it, and returns its result. Whether a request
is performed at once, awaited, passed on or delayed is up to the code that drives the job.

**Invariant:** each request that `resume` returns is given exactly one answer (None by default) or one error before the
next `resume`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from deferfs.errors import without_traceback

R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")


class Pump(Generic[R, A, T]):
    """One job between two of its requests. `result` is set once `resume` has returned None."""

    __slots__ = ("_answer", "_error", "_job", "done", "result")

    def __init__(self, job: Generator[R, A | None, T]) -> None:
        self._job = job
        self._answer: A | None = None
        self._error: BaseException | None = None
        self.done = False
        """The job has returned, or has failed."""
        self.result: T

    def resume(self) -> R | None:
        """Resume the job with the answer or error of its last request; returns the next request, or None at its end.
        Raises what the job raises."""
        answer, error = self._answer, self._error
        self._answer = self._error = None
        try:
            return self._job.send(answer) if error is None else self._job.throw(error)
        except StopIteration as stop:
            self.done = True
            self.result = stop.value
            return None
        except BaseException:
            self.done = True
            raise
        finally:
            error = None  # its traceback refers to this frame

    def answer(self, answer: A | None) -> None:
        """Set the answer of the last request."""
        self._answer = answer

    def fail(self, error: BaseException) -> None:
        """Set the error of the last request."""
        self._error = without_traceback(error)

    def close(self) -> None:
        """Abandon the job: its `finally` clauses run."""
        self.done = True
        self._job.close()


def pump(job: Generator[R, A | None, T], perform: Callable[[R], A | None]) -> T:
    """Run a job to its end, each request performed at once. An OSError is thrown into the job; other errors
    propagate."""
    running = Pump(job)
    while (request := running.resume()) is not None:
        try:
            running.answer(perform(request))
        except OSError as error:
            running.fail(error)
    return running.result
