"""`deferfs stat`."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deferfs.cli.stat_table import COLUMNS_MAX, stat_lines
from deferfs.contract.statistics import Statistics, Timing
from deferfs.mount.runtime.waits import WAIT_KINDS
from tests.cli.conftest import Command, environment_of_the_program, is_one_line
from tests.cli.stat_samples import STATISTICS
from tests.statistics_sample import read, zero


def lines_of(answered: dict[str, Any]) -> list[str]:
    """What `stat` makes of a daemon's answer."""
    return list(stat_lines(read(answered)))


def test_rows_fit_a_terminal() -> None:
    assert max(map(len, lines_of(STATISTICS))) <= COLUMNS_MAX < 80


def now(**changes: Any) -> str:
    """The line that tells what is out of the ordinary."""
    found = {**STATISTICS, "inodes": {**STATISTICS["inodes"], "quarantined": 0}}
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    lines = [line for line in lines_of(found) if line.startswith("now ")]
    return lines[0].removeprefix("now").strip() if lines else ""


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, ""),
        (
            {"frozen": True, "gc": {"stopped": True}, "freeze": {"since_ns": 0, "seconds": 200.0}},
            f"frozen since {datetime.fromtimestamp(0).astimezone():%H:%M:%S} (3 min 20 s, at most 600 s)",
        ),
        ({"gc": {"stopped": True}}, "inodegc stopped"),
        ({"read_only": True}, "read-only"),
        ({"read_only": True, "journal": {"aborted": "EIO"}}, "log ABORTED: read-only, see the log"),
        ({"corruptions_total": 2, "read_only": True}, "read-only, corruption found 2 times: run fsck"),
        ({"inodes": {"quarantined": 1}}, "1 inode in quarantine"),
        ({"inodes": {"quarantined": 3}}, "3 inodes in quarantine"),
        ({"timeline": {"file": "/trace"}}, "recording a timeline"),
    ],
)
def test_exceptional_states_come_first(changes: dict[str, Any], line: str) -> None:
    assert now(**changes) == line


def test_file_data_without_a_barrier_is_shown_with_the_memory() -> None:
    lines = lines_of(STATISTICS)
    start = next(number for number, line in enumerate(lines) if line.startswith("memory "))
    end = next(number for number, line in enumerate(lines) if line.startswith("inodes "))
    assert "         file data on its way to the disk 31.0 MiB" in lines[start:end]


def test_only_what_has_happened_is_listed_the_most_expensive_first() -> None:
    lines = lines_of(STATISTICS)
    table = lines[next(number for number, line in enumerate(lines) if line.startswith("request ")) :]
    assert [line.split()[0] for line in table[1:3]] == ["lookup", "create"]
    causes = table[next(number for number, line in enumerate(table) if line.startswith("of request ")) :]
    assert [line.split()[:2] for line in causes[1:3]] == [["create", "throttle"], ["unlink", "log"]]
    text = "\n".join(lines)
    assert "rename" not in text
    assert "\nlog " not in text
    nothing = {**STATISTICS, "requests": {}, "waits": {"throttle": zero(Timing)}, "waits_by_request": {}}
    text = "\n".join(lines_of(nothing))
    assert "wait for" not in text
    assert "of request" not in text
    assert "throttled" not in text


def test_a_histogram_has_a_row_for_each_power_of_two() -> None:
    lines = lines_of(STATISTICS)
    start = next(number for number, line in enumerate(lines) if line.startswith("inactivation "))
    assert lines[start + 1 : start + 7] == [
        "< 1.0 us                1000  ########################################",
        "< 2.0 us                   0",
        "< 4.1 us                   1  #",
        "< 8.2 us                   0",
        "< 16.4 us                 10  #",
        "",
    ]


def test_each_queue_has_a_row() -> None:
    text = "\n".join(lines_of(STATISTICS))
    assert "         queue 0: 1000000000 (999.0 GiB, oldest 12.3 s)\n         queue 1: 0 (0 B, oldest 0.0 s)" in text


def test_an_abort_is_shown() -> None:
    journal = {**STATISTICS["journal"], "aborted": "EIO"}
    assert "ABORTED" in "\n".join(lines_of({**STATISTICS, "journal": journal}))


@pytest.mark.mounted
def test_json_has_everything_that_is_documented(mounted: Path, image: Path, program: Command) -> None:
    (mounted / "file").write_text("hello")
    found = json.loads(program("stat", mounted, "--json").out)
    assert shape(found) == shape(zero(Statistics))
    assert read(found).requests["create"].count == 1
    assert found["image"] == str(image)
    assert found["mountpoint"] == str(mounted)
    assert found["evict"] == "deferred"
    assert found["requests"]["create"]["count"] == 1
    assert set(found["waits"]) == set(WAIT_KINDS)
    assert found["reclaim_context"]["violations_total"] == 0


MAPS = {"requests", "waits", "waits_by_request", "anomalies", "violations", "pressure_sources", "log2_ns"}
"""Keys of objects whose own keys differ from mount to mount."""


def shape(value: dict[str, Any]) -> set[str]:
    """The paths of all keys, but for those in maps."""
    paths = set()
    for key, inner in value.items():
        paths.add(key)
        if isinstance(inner, dict) and key not in MAPS:
            paths |= {f"{key}.{path}" for path in shape(inner)}
    return paths


@pytest.mark.mounted
def test_text(mounted: Path, program: Command) -> None:
    lines = program("stat", mounted).out.splitlines()
    assert lines[0] == str(mounted)
    assert any(line.startswith("space    ") for line in lines)


@pytest.mark.mounted
def test_watching_ends_with_the_mount(mounted: Path, program: Command) -> None:
    code = "from deferfs.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, "stat", mounted, "--json", "--watch", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of_the_program(PYTHONUNBUFFERED="1"),
    ) as watcher:
        assert watcher.stdout is not None
        pids = [json.loads(watcher.stdout.readline())["pid"] for _ in range(2)]
        assert pids[0] == pids[1]
        assert program("umount", mounted).code == 0
        _, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 1
    assert is_one_line(err)


@pytest.mark.mounted
def test_why_an_inode_is_not_freed(mounted: Path, program: Command) -> None:
    path = mounted / "file"
    with path.open("w") as file:
        ino = path.stat().st_ino
        path.unlink()
        outcome = program("stat", mounted, "--inode", ino)
        assert outcome.code == 0
        assert "links 0" in outcome.out
        assert "1 open handles or operations under way hold it" in outcome.out
        found = json.loads(program("stat", mounted, "--inode", ino, "--json").out)
        assert found["memory"]["references"]["handles_and_operations"] == 1
        file.write("still there")
    assert program("ctl", mounted, "gc=flush").code == 0
    assert "the number is not in use" in program("stat", mounted, "--inode", ino).out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--watch", "0"],
        ["--watch", "soon"],
        ["--dance"],
        ["--inode", "0"],
        ["--inode", "file"],
        ["--prometheus", "--json"],
        ["--prometheus", "--inode", "5"],
        ["--listen", "localhost:9000"],
        ["--prometheus", "--listen", "localhost:9000", "--watch", "1"],
    ],
)
def test_a_wrong_command_line(arguments: list[str], directory: Path, command: Command) -> None:
    outcome = command("stat", directory, *arguments)
    assert outcome.code == 2
    assert is_one_line(outcome.err)


def test_stat_where_nothing_is_mounted(directory: Path, command: Command) -> None:
    outcome = command("stat", directory)
    assert outcome.code == 1
    assert "no deferfs is mounted here" in outcome.err
