"""Exploration on a Dask cluster of two worker processes: the same results, even when one of them is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from deferfs.cli.main import run
from deferfs.crash.campaign import Summary, cluster, numbered, run_campaign
from deferfs.crash.exploration import Task

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300), pytest.mark.compiled]
TASK = Task(5, 20)
TASKS = 6


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """A worker that is lost is started again."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as local:
        yield local


@pytest.fixture(scope="module")
def serial() -> Summary:
    """The results of the same tasks, one after the other in this process."""
    return run_campaign(numbered(TASK, TASKS))


def test_the_results_are_those_of_a_serial_run(workers: Any, serial: Summary) -> None:
    with cluster(workers.scheduler_address) as executor:
        assert run_campaign(numbered(TASK, TASKS), executor=executor, jobs=2) == serial


def test_a_lost_worker_is_survived(workers: Any, serial: Summary) -> None:
    """Killed when the first result is there, while both have work: nothing is missing, nothing counted twice."""
    with distributed.Client(workers.scheduler_address) as client:
        pids = sorted(client.run(os.getpid).values())
    assert len(pids) == 2

    def kill_one(summary: Summary) -> None:
        if summary.tasks == 1:
            os.kill(pids[0], signal.SIGKILL)

    with cluster(workers.scheduler_address) as executor:
        assert run_campaign(numbered(TASK, TASKS), executor=executor, jobs=2, progress=kill_one) == serial


def test_the_command_uses_the_cluster(workers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["crash", "explore", "--scheduler", workers.scheduler_address, "--runs", "3", "--length", "20", "-q"]) == 0
    )
    assert "runs      3 of workload random" in capsys.readouterr().out


def test_a_scheduler_that_does_not_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deferfs.crash.campaign.CONNECT_SECONDS_MAX", 1)
    assert run(["crash", "explore", "--scheduler", "tcp://127.0.0.1:1", "--runs", "1"]) == 2
    err = capsys.readouterr().err
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in err
