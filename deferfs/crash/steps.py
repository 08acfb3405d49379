"""A job or a task of the engine that is brought on step by step, as a test decides."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from deferfs.device.base import Device
from deferfs.errors import FsError
from deferfs.store.io import Job, Request, perform
from deferfs.store.pump import Pump
from deferfs.volume.waits import Task, Wait

T = TypeVar("T")


class Stepper:
    """A job between two of its steps. A step performs the request that the job has issued, or resumes the job.

    `done` once the job is over. A request is pending between its two steps, so other work can run before or after it
    is performed, as with a slow or fast disk.
    """

    def __init__(self, device: Device, job: Job[Any], resumed: Callable[[Stepper], None]) -> None:
        self.device = device
        self._job = Pump(job)
        self.resumed = resumed
        """Called whenever the job has been resumed."""
        self.done = False
        self.failed = False
        """The job ended with an error; `done` as well."""
        self.request: Request | None = None
        """The pending request; None when it has been performed and the job is to be resumed."""
        self._resume()

    def _resume(self) -> None:
        try:
            self.request = self._job.resume()
        except FsError:
            self.failed = True
            raise
        finally:
            self.done = self._job.done
            self.resumed(self)

    def step(self) -> None:
        """Perform the request, or resume the job after it. FsError when the job ends with it."""
        if self.request is None:
            self._resume()
            return
        try:
            self._job.answer(perform(self.device, self.request))
        except OSError as error:
            self._job.fail(error)
        self.request = None

    def finish(self) -> None:
        while not self.done:
            self.step()


class Standing:
    """A task of the engine that is stopped at a wait; `wait` is None once it is over.

    It has its own context, as a task of the mount has. `then` is called with its result, `failed` with the FsError that
    it ends with.
    """

    def __init__(self, name: str, task: Task[T], then: Callable[[T], None], failed: Callable[[FsError], None]) -> None:
        self.name = name
        self.wait: Wait | None = None
        self._running: Pump[Wait, Any, T] = Pump(task)
        self._context = copy_context()
        self._then: Callable[[Any], None] = then
        self._failed = failed

    def resume(self) -> None:
        """Run to the next wait, or to the end."""
        try:
            self.wait = self._context.run(self._running.resume)
        except FsError as error:
            self.wait = None
            self._failed(error)
            return
        except BaseException:
            self.wait = None
            raise
        if self.wait is None:
            self._then(self._running.result)

    def drop(self) -> None:
        """Abandon it: its context managers exit, in its own context."""
        self.wait = None
        self._context.run(self._running.close)

    def answer(self, answer: Any) -> None:
        """Set the answer of its wait."""
        self._running.answer(answer)

    def fail(self, error: BaseException) -> None:
        """Set the error of its wait."""
        self._running.fail(error)
