import os
import signal
from collections.abc import Callable, Iterator

import msgspec
import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.work.processes import Job, StopFlag, Worker, WorkerError


class Seen(msgspec.Struct, frozen=True):
    pid: int
    prepared: bool


class Recording:
    """A job that does what it is given, and tells which process it ran in."""

    def __init__(self, during: Callable[[StopFlag], None] = lambda stop: None) -> None:
        self.name = "probe"
        self._during = during
        self._prepared = False

    def prepare(self) -> None:
        self._prepared = True

    def measure(self, stop: StopFlag) -> Seen:
        self._during(stop)
        return Seen(os.getpid(), self._prepared)


class Unprepared(Recording):
    def prepare(self) -> None:
        raise DeferfsError("no tree here")


@pytest.fixture
def start() -> Iterator[Callable[[Job], Worker]]:
    workers: list[Worker] = []

    def fork(job: Job) -> Worker:
        worker = Worker(job, stop)
        workers.append(worker)
        return worker

    stop = StopFlag()
    yield fork
    for worker in workers:
        worker.close()
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)


def test_a_worker_prepares_then_measures_in_a_process_of_its_own(
    start: Callable[[Job], Worker],
) -> None:
    worker = start(Recording())
    worker.join()
    worker.wait_ready()
    worker.go()
    assert worker.result(60) == {"pid": worker.pid, "prepared": True}
    assert worker.pid != os.getpid()


def test_the_stop_flag_reaches_a_running_worker() -> None:
    def until_stopped(stop: StopFlag) -> None:
        while not stop:
            os.sched_yield()

    stop = StopFlag()
    worker = Worker(Recording(until_stopped), stop)
    try:
        worker.join()
        worker.wait_ready()
        worker.go()
        stop.raise_()
        assert worker.result(60)["prepared"]
    finally:
        worker.close()


def test_an_error_of_the_worker_is_told_in_one_line(start: Callable[[Job], Worker]) -> None:
    worker = start(Unprepared())
    worker.join()
    with pytest.raises(WorkerError, match="the probe process failed: no tree here"):
        worker.wait_ready()


def test_a_killed_worker_points_to_the_memory_limit(start: Callable[[Job], Worker]) -> None:
    worker = start(Recording(lambda stop: os.kill(os.getpid(), signal.SIGKILL)))
    worker.join()
    worker.wait_ready()
    worker.go()
    with pytest.raises(WorkerError, match=r"killed, most likely by the OOM killer"):
        worker.result(60)


def test_a_worker_that_is_killed_while_it_waits_says_so_too(start: Callable[[Job], Worker]) -> None:
    worker = start(Recording())
    worker.join()
    worker.wait_ready()
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(WorkerError, match=r"killed, most likely by the OOM killer"):
        worker.go()


def test_a_worker_that_ends_by_itself_is_noticed(start: Callable[[Job], Worker]) -> None:
    worker = start(Recording(lambda stop: os._exit(3)))
    worker.join()
    worker.wait_ready()
    worker.go()
    with pytest.raises(WorkerError, match="ended early"):
        worker.result(60)


def test_a_worker_that_hangs_is_given_up(start: Callable[[Job], Worker]) -> None:
    def hang(stop: StopFlag) -> None:
        signal.pause()

    worker = start(Recording(hang))
    worker.join()
    worker.wait_ready()
    worker.go()
    with pytest.raises(WorkerError, match="gave no answer"):
        worker.result(0)
