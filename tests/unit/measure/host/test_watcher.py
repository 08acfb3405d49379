import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deferfs.measure.harness import Plan, run
from deferfs.measure.host.watcher import Watcher
from deferfs.measure.scenario import Surroundings
from tests.unit.measure.fakes import Fake, Parameters, conditions

COMPUTE = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\nimport sys\nsys.stdin.read()"


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def test_the_account_of_a_process_is_known_when_it_has_ended(watcher: Watcher) -> None:
    words = [sys.executable, "-c", COMPUTE]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        watcher.add(process.pid)
        process.stdout.readline()
        watcher.accounts()
        process.stdin.close()
    assert watcher.accounts()[process.pid].own >= 0.25


def test_a_process_that_never_was_has_no_account(watcher: Watcher) -> None:
    watcher.add(2**22 + 1)
    assert watcher.accounts() == {}


def test_a_watcher_that_was_killed_says_nothing(watcher: Watcher) -> None:
    os.kill(watcher.pid, signal.SIGKILL)
    os.waitid(os.P_PID, watcher.pid, os.WEXITED | os.WNOWAIT)
    watcher.add(os.getpid())
    assert watcher.accounts() == {}


def test_the_watcher_holds_no_descriptor_of_its_parent() -> None:
    out, into = os.pipe()
    made = Watcher()
    try:
        os.close(into)
        assert os.read(out, 1) == b""  # the end of the file: no other process has it
    finally:
        made.close()
        os.close(out)


def test_a_scenario_is_prepared_in_a_process_of_one_thread(tmp_path: os.PathLike[str]) -> None:
    """Only such a process may enter a mount namespace."""
    threads = []

    class Counting(Fake):
        @contextmanager
        def prepared(self, parameters: object, surroundings: Surroundings) -> Iterator[Fake]:
            surroundings.own(os.getppid())
            threads.append(threading.active_count())
            yield self

    before = threading.active_count()
    run([Plan(Counting(), Parameters(), 1)], conditions(tmp_path))  # type: ignore[arg-type]
    assert threads == [before]
