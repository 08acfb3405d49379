"""`deferfs bench` as a user meets it, with a scenario that needs nothing of the machine."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deferfs.cli import bench_run
from deferfs.cli.bench_run import Request, make_plans
from deferfs.errors import UsageError
from deferfs.measure import catalogue
from deferfs.measure.results import encode_report
from tests.cli.conftest import Command, Outcome, environment_of_the_program
from tests.unit.measure.fakes import Fake, report

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60
BENCH = """\
import sys, time, pathlib
from deferfs.measure import catalogue
from deferfs.cli import bench_run
from tests.unit.measure.fakes import Fake

_, kind, directory, *words = sys.argv

def before(side, loop, number):
    if kind == "hang" and number == 2:
        pathlib.Path(directory, "hanging").touch()
        time.sleep(60)

catalogue.find_scenarios = lambda packages: {"fake": Fake(before=before, pairs=3)}
bench_run.keep_mounts_private = lambda: None
from deferfs.cli.main import main
sys.argv = ["deferfs", "bench", *words]
main()
"""


def start(kind: str, directory: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = environment_of_the_program(PYTHONPATH=str(ROOT))
    words = [sys.executable, "-P", "-c", BENCH, kind, str(directory), *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def bench(directory: Path, *arguments: object) -> Outcome:
    process = start("quick", directory, *arguments)
    out, err = process.communicate(timeout=SECONDS_MAX)
    return Outcome(process.returncode, out, err)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def test_help_names_options_and_commands(command: Command) -> None:
    text = command("bench", "--help").out
    for word in ("--full", "--pairs", "--disk", "--loop", "--set", "--target", "--aa", "--json", "--html"):
        assert word in text
    for word in ("list", "disk", "compare", "schema"):
        assert f"\n  {word} " in text
        assert command("bench", word, "--help").out.startswith(f"Usage: deferfs bench {word}")


def test_a_run_ends_in_sentences_ratios_and_files(tmp_path: Path, scratch: Path) -> None:
    json_file, html_file = tmp_path / "a.json", tmp_path / "a.html"
    done = bench(tmp_path, "fake", "--scratch", scratch, "--json", json_file, "--html", html_file, "--pairs", 6)
    assert done.code == 0
    assert "An operation that needed memory waited" in done.out
    assert "fake: closed loop, pair 1 of 6: " in done.err
    assert json.loads(json_file.read_text())["schema"] == "deferfs-bench/2"
    assert html_file.read_text().startswith("<!doctype html>")
    assert list(scratch.iterdir()) == []


def test_parameters_are_set(tmp_path: Path, scratch: Path) -> None:
    json_file = tmp_path / "a.json"
    words = ("--set", "inodes=7", "--disk", "hdd", "--pairs", 1)
    assert bench(tmp_path, "fake", "--scratch", scratch, "--json", json_file, *words).code == 0
    (result,) = json.loads(json_file.read_text())["results"]
    assert (result["parameters"]["inodes"], result["disk"]) == (7, "hdd")


def test_one_loop_alone_is_run(tmp_path: Path, scratch: Path) -> None:
    json_file = tmp_path / "a.json"
    words = ("--loop", "closed", "--pairs", 2)
    assert bench(tmp_path, "fake", "--scratch", scratch, "--json", json_file, *words).code == 0
    (result,) = json.loads(json_file.read_text())["results"]
    assert {one["loop"] for one in result["passes"]} == {"closed"}


def test_a_full_run_sweeps(tmp_path: Path, scratch: Path) -> None:
    json_file = tmp_path / "a.json"
    assert bench(tmp_path, "fake", "--full", "--scratch", scratch, "--json", json_file, "--pairs", 1).code == 0
    results = json.loads(json_file.read_text())["results"]
    assert [result["parameters"]["inodes"] for result in results] == [100, 1000]


def test_an_interrupt_gives_what_is_finished_and_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    json_file = tmp_path / "a.json"
    process = start("hang", tmp_path, "fake", "--scratch", scratch, "--json", json_file)
    try:
        deadline = time.monotonic() + SECONDS_MAX
        while not (tmp_path / "hanging").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS_MAX)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Interrupted: this is what was finished." in out and "needs memory" in out
    assert "Traceback" not in err
    found = json.loads(json_file.read_text())
    assert found["interrupted"] and {one["pair"] for one in found["results"][0]["passes"]} == {1}
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone",), "no scenario gone; there are fake"),
        (("fake", "fake"), "a scenario is named twice"),
        (("fake", "--set", "inodes"), "--set inodes: write it as NAME=VALUE"),
        (("fake", "--set", "gone=1"), "--set gone=1: the scenario fake has no parameter gone; there are inodes"),
        (("fake", "--set", "inodes=x"), "--set inodes=x: fake: expected `int`"),
        (("fake", "--disk", "floppy"), "no disk is called 'floppy'"),
        (("fake", "--target", "/"), "--target: the scenario fake makes its own filesystems"),
        (("churn", "--loop", "sideways"), "invalid value for '--loop'"),
        (("fake", "--pairs", "0"), "invalid value for '--pairs'"),
        (("fake", "--json", "/"), "/: "),
        (("compare", "a.json"), "missing argument 'B.json'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_run(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(catalogue, "find_scenarios", lambda packages: {"fake": Fake()})
    monkeypatch.setattr(bench_run, "keep_mounts_private", lambda: None)
    done = command("bench", *arguments)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith(f"deferfs: {said}")


def test_the_schema_is_printed(command: Command) -> None:
    assert json.loads(command("bench", "schema").out)["$ref"] == "#/$defs/Report"


def test_two_results_are_compared(tmp_path: Path, command: Command) -> None:
    files = []
    for name, slower in (("a", 1.0), ("b", 2.0)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_bytes(encode_report(report(tmp_path, Fake(slower={"deferred": slower}), pairs=8)))
    done = command("bench", "compare", *files)
    assert done.code == 0
    assert "A faster" in done.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file or directory"),
        ("no", "not JSON"),
        ("{}", "not a result of `deferfs bench --json`"),
        ('{"schema": "deferfs-bench/1"}', "has the schema deferfs-bench/1; this version reads"),
    ],
)
def test_a_file_that_is_no_result_is_told_by_name(
    tmp_path: Path, command: Command, text: str | None, said: str
) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    done = command("bench", "compare", path, path)
    assert done.code == 2
    assert done.err.startswith(f"deferfs: {path}: {said}")
    assert len(done.err.splitlines()) == 1


def test_results_with_nothing_in_common_are_told(tmp_path: Path, command: Command) -> None:
    files = []
    for name in ("a", "b"):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_bytes(encode_report(report(tmp_path, Fake(name=name), pairs=1)))
    done = command("bench", "compare", *files)
    assert done.code == 2
    assert "in common" in done.err


def test_the_presets_of_the_disk_are_listed_with_their_sources(command: Command) -> None:
    text = command("bench", "disk").out
    assert "hdd: a disk of 7,200 rpm" in text and "specification" in text
    assert command("bench", "disk", "floppy").code == 2


def test_the_scenarios_are_listed(command: Command) -> None:
    assert command("bench", "list").code == 0


def test_an_existing_mount_has_no_slow_disk(tmp_path: Path) -> None:
    def asked(disk: str | None) -> Request:
        return Request(("churn",), False, None, disk, None, (), (), tmp_path, False, 1, None, None, None)

    assert [one.disk for one in make_plans(asked(None))] == [""]
    with pytest.raises(UsageError, match=f"--disk: {tmp_path} is mounted already, on a disk of its own"):
        make_plans(asked("ssd"))


def test_a_loop_that_the_scenario_does_not_have_is_refused() -> None:
    request = Request(("allocation",), False, None, None, "open", (), (), None, False, 1, None, None, None)
    with pytest.raises(UsageError, match="--loop: the scenario allocation has no open loop"):
        make_plans(request)


def requested(name: str, *, full: bool = False, disk: str | None = None, sides: tuple[str, ...] = ()) -> Request:
    return Request((name,), full, None, disk, None, sides, (), None, False, 1, None, None, None)


def requested_none(**changes: Any) -> Request:
    return replace(requested("allocation"), scenarios=(), **changes)


def test_a_run_without_arguments_takes_up_to_ten_pairs_of_one_loop_and_one_of_the_filesystems() -> None:
    allocation, inside = make_plans(requested_none())
    assert (allocation.scenario.name, allocation.pairs, allocation.loops) == ("allocation", 1, ("closed",))
    assert (inside.scenario.name, inside.pairs, inside.loops) == ("direct-reclaim", None, ("open",))
    assert inside.scenario.pairs == 10


def test_beside_the_files_of_a_run_without_arguments_a_process_exits() -> None:
    _, inside = make_plans(requested_none())
    (named,) = make_plans(requested("direct-reclaim"))
    assert inside.parameters == msgspec.structs.replace(
        named.parameters, memory_mib=2, owing=4250, others=1000, orphans=12, owing_links=True
    )
    assert all(plan.parameters != inside.parameters for plan in make_plans(requested_none(full=True)))


def test_a_named_number_of_pairs_goes_before_that_of_the_default_run() -> None:
    assert {plan.pairs for plan in make_plans(requested_none(pairs=5))} == {5}


@pytest.mark.parametrize("asked_for", [requested("allocation"), requested_none(full=True)])
def test_a_named_scenario_and_a_full_run_take_the_pairs_of_the_scenario(asked_for: Request) -> None:
    assert {plan.pairs for plan in make_plans(asked_for)} == {None}


def test_sides_can_be_chosen() -> None:
    (plan,) = make_plans(requested("direct-reclaim", sides=("deferred", "floor")))
    assert plan.sides == frozenset({"deferred", "floor"})
    assert make_plans(requested("direct-reclaim"))[0].sides is None


def test_a_side_that_the_scenario_does_not_have_is_refused() -> None:
    with pytest.raises(
        UsageError,
        match="--side: the scenario direct-reclaim has no side 'ext4'; its sides are inline, deferred, floor",
    ):
        make_plans(requested("direct-reclaim", sides=("deferred", "ext4")))


@pytest.mark.parametrize("name", ["allocation", "direct-reclaim"])
def test_a_full_run_sweeps_the_disk_unless_one_is_named(name: str) -> None:
    swept = make_plans(requested(name, full=True))
    named = make_plans(requested(name, full=True, disk="ssd"))
    assert {plan.disk for plan in named} == {"ssd"}
    further = swept[len(named) :]
    assert len({plan.disk for plan in further}) == len(further) == 4
    assert {repr(plan.parameters) for plan in further} == {repr(make_plans(requested(name))[0].parameters)}
