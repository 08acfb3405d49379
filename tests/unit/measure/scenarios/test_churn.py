"""The scenario on a plain directory, which is also how it works on a mounted filesystem that is no deferfs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from deferfs.contract.requests import Answer, Query, Set
from deferfs.errors import DeferfsError, EnvironmentProblem, UsageError
from deferfs.measure.mounts import standing_mount
from deferfs.measure.mounts.standing_mount import StandingMount
from deferfs.measure.scenarios import churn
from deferfs.measure.scenarios.churn import AS_MOUNTED, DEFERRED, FLOOR, INLINE, KEPT, SCENARIO, Parameters
from deferfs.measure.work.race import Loads
from deferfs.measure.work.tree import make_tree
from tests.statistics_sample import answer
from tests.unit.measure.slow_mounts import Machine

SMALL = Parameters(rounds=2, tree_files=400, kernel_mib=0)


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test drops the caches of the machine."""
    monkeypatch.setattr(standing_mount, "drop_dentries", lambda: None)


@pytest.fixture
def parameters(tmp_path: Path) -> Parameters:
    target = tmp_path / "target"
    target.mkdir()
    return Parameters(rounds=2, tree_files=400, kernel_mib=0, target=str(target))


def test_other_filesystems_are_compared_with_the_same_work_with_second_names(parameters: Parameters) -> None:
    assert SCENARIO.sides(Parameters()) == (INLINE, DEFERRED, FLOOR)
    assert SCENARIO.sides(parameters) == (AS_MOUNTED, KEPT)
    assert SCENARIO.missing(KEPT, parameters) == ""


@pytest.mark.parametrize("side", [AS_MOUNTED, KEPT])
def test_a_pass_in_a_directory_starts_from_the_same_state_and_leaves_nothing(
    side: object, parameters: Parameters, tmp_path: Path
) -> None:
    target = Path(parameters.target)
    chosen = AS_MOUNTED if side is AS_MOUNTED else KEPT
    with SCENARIO.prepared(parameters, Machine().surroundings(tmp_path)) as prepared:
        found = [prepared.perform(chosen, loop, 1) for loop in ("open", "closed", "open")]
        assert sorted(path.name for path in next(target.iterdir()).iterdir()) == ["tree"]
    assert list(target.iterdir()) == []
    for one in found:
        assert one.outcome == "finished"
        assert one.series["churn-delete"].latency.count == 2 * 19
        assert one.seconds >= one.counters["load_seconds"]
    assert {"create", "stat", "write", "fsync", "memory"} <= set(found[0].series)
    assert all(name.startswith("churn-") for name in found[1].series)
    assert found[1].waits == {}


@pytest.mark.parametrize("failure", [DeferfsError("no"), KeyboardInterrupt()])
def test_nothing_is_left_in_a_directory_when_a_pass_is_broken_off(
    failure: BaseException, parameters: Parameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(self: Loads, *_: object) -> None:
        raise failure

    monkeypatch.setattr(Loads, "run", broken_off)
    with (
        pytest.raises(type(failure)),
        SCENARIO.prepared(parameters, Machine().surroundings(tmp_path)) as prepared,
    ):
        prepared.perform(AS_MOUNTED, "open", 1)
    assert list(Path(parameters.target).iterdir()) == []


def test_a_directory_that_cannot_be_worked_in(tmp_path: Path) -> None:
    missing = Parameters(target=str(tmp_path / "none"))
    with (
        pytest.raises(EnvironmentProblem, match="cannot work in"),
        SCENARIO.prepared(missing, Machine().surroundings(tmp_path)),
    ):
        pass


def test_a_daemon_that_is_not_ours_is_not_moved(parameters: Parameters, tmp_path: Path) -> None:
    inside = msgspec.structs.replace(parameters, daemon_inside=True)
    with (
        pytest.raises(UsageError, match="daemon_inside"),
        SCENARIO.prepared(inside, Machine().surroundings(tmp_path)),
    ):
        pass


# --- a deferfs that is mounted already, faked ---
class FakeDaemon:
    """Answers for a mount, and has something to clean up `left` times."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.settings: list[tuple[str, str]] = []

    def ask(self, root: Path, request: Query[Answer]) -> Answer:
        if isinstance(request, Set):
            self.settings.append((request.key, request.value))
        else:
            self.left -= 1
        told = answer(evict="inline", gc={"queued": max(self.left, 0)})
        return request.read("" if isinstance(request, Set) else told, str(root))


def standing(daemon: FakeDaemon, root: Path, monkeypatch: pytest.MonkeyPatch) -> StandingMount:
    monkeypatch.setattr(standing_mount, "is_deferfs", lambda path: True)
    make_tree(root, 200)
    surroundings: Any = SimpleNamespace(ask=daemon.ask, own=lambda pid: None)
    return StandingMount(root, surroundings, victims=16)


def test_settings_of_a_mount_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = FakeDaemon(5)
    with standing(daemon, tmp_path, monkeypatch) as mount:
        mount.set("evict", "deferred")
        mount.set("gc", "stop")
    assert daemon.settings[-2:] == [("gc", "start"), ("evict", "inline")]
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_pass_waits_until_no_cleanup_is_owed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = FakeDaemon(5)
    with standing(daemon, tmp_path, monkeypatch) as mount:
        mount.close()
        assert daemon.left <= 0
        daemon.left = 10**9
        monkeypatch.setattr(standing_mount, "OWED_SECONDS_MAX", 0.0)
        with pytest.raises(DeferfsError, match="still something to clean up"):
            mount.close()


def test_loads_of_both_loops(tmp_path: Path) -> None:
    main, beside = churn.loads(tmp_path, "closed", SMALL, 1)
    assert ([job.name for job in main], beside) == (["workload"], [])
    main, beside = churn.loads(tmp_path, "open", SMALL, 1)
    assert [job.name for job in beside] == ["create", "stat", "write", "fsync", "memory"]
