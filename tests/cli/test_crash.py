"""`deferfs crash`: what it prints, writes and ends with."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from deferfs.cli import crash_run, output
from deferfs.cli.main import run
from deferfs.crash import campaign
from deferfs.crash.exploration import Result, Task, run_task
from tests.cli.conftest import Command
from tests.property.log_faults import FAULTS


def test_explore_reports_rate_and_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crash", "explore", "--runs", "2", "--length", "30", "-q"]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert "distinct states a second" in out
    assert "the last synced state" in out


def test_explore_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crash", "explore", "--runs", "2", "--length", "30", "--evict", "inline", "-q", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"], found["next_seed"], found["failure"], found["program"]) == (2, 2, None, None)
    assert found["states"] > 100


def test_explore_draws_only_the_given_operations(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["crash", "explore", "--operations", "create,commit_step", "--runs", "1", "-q"]
    assert run(arguments) == 0
    capsys.readouterr()
    assert run([*arguments[:3], "create,nonsense", *arguments[4:]]) == 2
    assert "no such operation: nonsense; there are" in capsys.readouterr().err


def test_a_workload_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """With its last sequence, however many runs are asked for."""
    assert run(["crash", "explore", "--workload", "seq-1", "--seed", "142", "--runs", "50", "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--workload", "seq-9"], "no such workload: seq-9"),
        (["--workload", "seq-1", "--seed", "144"], "seed 144: the sequences of seq-1 are numbered 0 to 143"),
        (["-b", "1000"], "block size must be a power of two"),
        (["--jobs", "2", "--scheduler", "tcp://127.0.0.1:1"], "--jobs is about processes of this machine"),
        (["--output", __file__], "not a directory"),
        (["--evict", "never"], "never"),
        (["--time", "0"], "--time"),
    ],
)
def test_explore_usage(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crash", "explore", *arguments]) == 2
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_a_failure_is_shrunk_written_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS["the_commit_record_is_not_flushed"].plant(monkeypatch)
    arguments = ["crash", "explore", "--seed", "2", "--length", "40", "--output", str(tmp_path), "--shrink", "5"]
    assert run([*arguments, "-q", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["failure"] in err
    program = found["program"]
    assert Path(program).with_suffix(".img").stat().st_size > 0
    assert run(["crash", "replay", program]) == 1
    assert "still fails" in capsys.readouterr().out
    monkeypatch.undo()
    assert run(["crash", "replay", program]) == 0
    assert "does not fail any more" in capsys.readouterr().out


def as_program(**changes: object) -> str:
    finding = {"reason": "", "shape": {}, "seed": 1, "actions": [], "place": None, **changes}
    return f"FINDING = {finding!r}\n"


@pytest.mark.parametrize(
    "text",
    [
        "FINDING = {'reason': 1}\n",
        "x = 1\n",
        "not python\n",
        "FINDING = f()\n",
        as_program(actions=[("nonsense", (0, 0, 0, 0))]),
        as_program(shape={"free_blocks": "large"}),
        as_program(place={"epoch": 1}),
        as_program(place={"epoch": 1, "choice": {"torn": 1}, "within": None}),
    ],
)
def test_replay_of_something_else(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.py"
    path.write_text(text)
    assert run(["crash", "replay", str(path)]) == 1
    err = capsys.readouterr().err
    assert "not a crash that `deferfs crash explore` wrote" in err
    assert err.count("\n") == 1


def test_replay_where_the_crash_is_not_there_any_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The program does other things than when the failure was found: the image beside it is still checked."""
    path = tmp_path / "crash.py"
    path.write_text(as_program(place={"epoch": 10_000, "choice": {"kept": 0}, "within": None}))
    path.with_suffix(".img").write_bytes(bytes(1 << 20))
    assert run(["crash", "replay", str(path)]) == 0
    out = capsys.readouterr().out
    assert "does not fail any more" in out
    assert "the run no longer comes to this crash" in out
    assert "not a deferfs image" in out


def test_replay_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crash", "replay", str(tmp_path / "none.py")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_an_interrupt_keeps_what_was_counted(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    """And tells by which number to go on; the run under way counts for nothing."""
    real = run_task

    def interrupted(task: Task) -> Result:
        if task.seed == 7:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(campaign, "run_task", interrupted)
    words = ("crash", "explore", "--runs", "9", "--seed", "5", "--length", "5", "--evict", "inline", "-q")
    outcome = command(*words)
    assert outcome.code == 130
    assert outcome.out.startswith("runs      2 of workload random, seeds 5 to 6\n")
    assert outcome.err == "deferfs: interrupted; the runs under way are not counted, --seed 7 continues with them\n"
    found = json.loads(command(*words, "--json").out)
    assert (found["runs"], found["next_seed"]) == (2, 7)


def test_progress_is_told_while_a_run_takes_long(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    told = threading.Event()
    real, tell = run_task, output.tell

    def slow(task: Task) -> Result:
        assert told.wait(60), "no progress"
        return real(task)

    def hear(text: str) -> None:
        tell(text)
        told.set()

    monkeypatch.setattr(crash_run, "_PROGRESS_SECONDS", 0.01)
    monkeypatch.setattr(crash_run, "tell", hear)
    monkeypatch.setattr(campaign, "run_task", slow)
    outcome = command("crash", "explore", "--runs", "1", "--seed", "3", "--length", "5")
    assert outcome.code == 0
    assert "0 runs, 0 distinct states, 0/s, 0 journal states; now at seed 3" in outcome.err
