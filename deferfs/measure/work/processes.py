"""Worker processes: forked, put into a cgroup before they allocate, started together.

Fork rather than a fresh interpreter: under a small memory limit six interpreters would fill the cgroup by themselves,
while a forked child is charged only for the pages that it changes.

The protocol: the parent sends `join` once the child is in its cgroup; the child prepares and answers `ready`; the
parent sends `go`; the child measures and answers with its result. A stop flag in shared memory ends jobs without an end
of their own. A child is killed when its parent ends, for whatever reason (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import select
import signal
from typing import Any, Final, NoReturn, Protocol

import msgspec

from deferfs.errors import DeferfsError

PR_SET_PDEATHSIG: Final = 1
PREPARE_SECONDS_MAX: Final = 300.0
"""Timeout of a preparation: the longest walks the whole tree under a tight memory limit on a slow filesystem."""


class StopFlag:
    """One byte of memory shared by all processes forked after its creation."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def raise_(self) -> None:
        """Ask all workers to stop."""
        self._page[0] = 1

    def __bool__(self) -> bool:
        return self._page[0] != 0


class Job(Protocol):
    """What a worker does. Both methods run in the child."""

    name: str

    def prepare(self) -> None:
        """Do everything that must not be measured."""

    def measure(self, stop: StopFlag) -> msgspec.Struct:
        """Run the measured part; returns the result sent to the parent."""


class WorkerError(DeferfsError):
    """A worker process failed or was killed."""


class Worker:
    """A forked process that runs one `Job`. Call `join`, `wait_ready`, `go`, `result`, in this order; then `close`."""

    def __init__(self, job: Job, stop: StopFlag) -> None:
        self.name = job.name
        orders_out, self._orders = os.pipe()
        answers_fd, answers_in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._orders)
            os.close(answers_fd)
            _run_child(job, stop, orders_out, answers_in)
        os.close(orders_out)
        os.close(answers_in)
        self._answers = os.fdopen(answers_fd, "rb")
        self._reaped = False

    def join(self) -> None:
        """Let the child start preparing. WorkerError when it has died."""
        self._order(b"j")

    def wait_ready(self, seconds_max: float = PREPARE_SECONDS_MAX) -> None:
        """Wait until the child has prepared. WorkerError when that fails or takes longer."""
        self._answer(seconds_max)

    def go(self) -> None:
        """Start the measured part. WorkerError when it has died."""
        self._order(b"g")

    def has_answer(self, seconds_max: float) -> bool:
        """Wait at most `seconds_max` for an answer, or the end of the process; False on timeout."""
        return bool(select.select([self._answers], [], [], seconds_max)[0])

    def result(self, seconds_max: float) -> Any:
        """Wait for the result, as decoded JSON. WorkerError when the process fails, ends or times out."""
        return self._answer(seconds_max)

    def alive(self) -> bool:
        """Whether the process has not exited. Reaps it when it has."""
        if not self._reaped:
            self._reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return not self._reaped

    def close(self) -> None:
        """End the process, if it still runs, and reap it."""
        if not self._reaped:
            self._kill()
            os.waitpid(self.pid, 0)
            self._reaped = True
        if not self._answers.closed:
            self._answers.close()
            os.close(self._orders)

    def _order(self, order: bytes) -> None:
        try:
            os.write(self._orders, order)
        except BrokenPipeError:
            raise WorkerError(self._explain_death()) from None

    def _kill(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _answer(self, seconds_max: float) -> Any:
        if not self.has_answer(seconds_max):
            raise WorkerError(
                f"the {self.name} process gave no answer within {seconds_max:.0f} s; the filesystem may hang"
            )
        line = self._answers.readline()
        if not line:
            raise WorkerError(self._explain_death())
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise WorkerError(f"the {self.name} process failed: {answer['error']}")
        return answer["answer"]

    def _explain_death(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return f"the {self.name} process was killed, most likely by the OOM killer of its memory cgroup"
        return f"the {self.name} process ended early (wait status {status})"


def problem_words(problem: Exception) -> str:
    """A system error without its number: `/mnt/x: No space left on device`; of others, the text."""
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename}: {problem.strerror}" if problem.filename else problem.strerror
    return str(problem)


def _run_child(job: Job, stop: StopFlag, orders: int, answers: int) -> NoReturn:
    code = 1
    # A collection would touch, and so copy, the pages of the parent's objects; inside an operation it would be taken
    # for the filesystem's latency.
    gc.disable()
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # Ctrl-C reaches the whole group; the parent alone decides what then happens.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            os.read(orders, 1)
            job.prepare()
            _send(answers, {"answer": "ready"})
            os.read(orders, 1)
            _send(answers, {"answer": job.measure(stop)})
            code = 0
        except (OSError, DeferfsError) as error:
            _send(answers, {"error": problem_words(error)})
    finally:
        os._exit(code)


def _send(answers: int, message: object) -> None:
    line = msgspec.json.encode(message) + b"\n"
    while line:
        line = line[os.write(answers, line) :]
