"""`deferfs stat`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deferfs.cli.stat_table import COLUMNS_MAX, format_duration, format_ns, stat_lines
from tests.cli.conftest import Command, environment_of_the_program, is_one_line

BIG = 10**9
STATISTICS: dict[str, Any] = {
    "version": "0.1.0", "compiled": False, "uuid": "0", "label": "", "image": "/image", "mountpoint": "/mnt",
    "pid": 123456, "uptime_seconds": 123.4, "evict": "deferred",
    "memory": {
        "budget_bytes": 256 << 20, "used_bytes": 255 << 20, "inode_bytes": 100 << 20,
        "block_bytes": 155 << 20, "reserve_bytes": 16 << 20, "direct_reclaims_total": BIG,
    },
    "inodes": {
        "cached": BIG, "active": BIG, "idle": BIG, "queued": BIG, "inactivating": BIG,
        "quarantined": BIG,
    },
    "gc": {
        "queued": BIG, "pending_bytes": 999 << 30, "queued_total": BIG, "inactivated_total": BIG,
        "cancelled_total": BIG, "errors_total": BIG, "batches_total": BIG, "oldest_seconds": 12.3,
        "workers": 64,
    },
    "journal": {
        "blocks": 16384, "used_blocks": 16384, "running_blocks": 16384, "tid": BIG,
        "commits_total": BIG, "checkpoints_total": BIG, "aborted": "",
    },
    "space": {"block_size": 4096, "blocks": BIG, "free_blocks": BIG, "pending_free_blocks": BIG},
    "poll": {
        "limit_us": 1000, "window_ns": 999_999, "hits_total": BIG, "misses_total": BIG, "spent_ns_total": BIG * BIG,
    },
    "requests": {
        "lookup": {"count": BIG, "total_ns": BIG * 1000, "max_ns": 12_300_000},
        "create": {"count": 1, "total_ns": 5 * BIG, "max_ns": 5 * BIG},
        "rename": {"count": 0, "total_ns": 0, "max_ns": 0},
    },
    "waits": {"log": {"count": 0, "total_ns": 0, "max_ns": 0}},
    "reclaim_context": {"violations_total": 0},
}  # fmt: skip


def test_rows_fit_a_terminal() -> None:
    assert max(map(len, stat_lines(STATISTICS))) <= COLUMNS_MAX < 80


def test_only_what_has_happened_is_listed_the_most_expensive_first() -> None:
    lines = list(stat_lines(STATISTICS))
    names = [line.split()[0] for line in lines if line.endswith((" us", " ms", " s"))]
    assert names[-2:] == ["create", "lookup"] or names[-2:] == ["lookup", "create"]
    text = "\n".join(lines)
    assert "rename" not in text
    assert "wait for" not in text


def test_an_abort_is_shown() -> None:
    journal = {**STATISTICS["journal"], "aborted": "EIO"}
    assert "ABORTED" in "\n".join(stat_lines({**STATISTICS, "journal": journal}))


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ns"), (850, "850 ns"), (12_345, "12.3 us"), (4.56e6, "4.6 ms"), (4.56e9, "4.56 s")],
)
def test_times(nanoseconds: float, text: str) -> None:
    assert format_ns(nanoseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.9, "12 s"), (200, "3 min 20 s"), (18_725, "5 h 12 min"), (356_400, "4 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.mounted
def test_json_has_everything_that_is_documented(mounted: Path, image: Path, program: Command) -> None:
    (mounted / "file").write_text("hello")
    found = json.loads(program("stat", mounted, "--json").out)
    assert shape(STATISTICS) <= shape(found)
    assert found["image"] == str(image)
    assert found["mountpoint"] == str(mounted)
    assert found["evict"] == "deferred"
    assert found["requests"]["create"]["count"] == 1
    assert set(found["waits"]) == {"log", "memory", "io", "gc", "space", "commit"}
    assert found["reclaim_context"]["violations_total"] == 0


def shape(value: dict[str, Any]) -> set[str]:
    """The paths of all keys, but for those that are names of requests."""
    paths = set()
    for key, inner in value.items():
        paths.add(key)
        if isinstance(inner, dict) and key not in ("requests", "waits"):
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


@pytest.mark.parametrize("arguments", [["--watch", "0"], ["--watch", "soon"], ["--dance"]])
def test_a_wrong_command_line(arguments: list[str], directory: Path, command: Command) -> None:
    outcome = command("stat", directory, *arguments)
    assert outcome.code == 2
    assert is_one_line(outcome.err)


def test_where_nothing_is_mounted(directory: Path, command: Command) -> None:
    outcome = command("stat", directory)
    assert outcome.code == 1
    assert "no deferfs is mounted here" in outcome.err
