"""`deferfs ctl`."""

import json
import re
from pathlib import Path

import pytest

from deferfs.contract.settings import LIVE
from tests.cli.conftest import Command, Outcome, is_one_line


@pytest.mark.mounted
def test_settings_change_live_and_in_order(mounted: Path, program: Command) -> None:
    outcome = program(
        "ctl",
        mounted,
        "evict=inline",
        "commit=2",
        "gc_workers=3",
        "gc_in_core=9",
        "memory=64M",
        "poll=20",
        "background_reclaim=off",
    )
    assert outcome == Outcome(
        0, "evict=inline\ncommit=2\ngc_workers=3\ngc_in_core=9\nmemory=64M\npoll=20\nbackground_reclaim=off\n", ""
    )
    found = json.loads(program("stat", mounted, "--json").out)
    assert found["evict"] == "inline"
    assert found["gc"]["workers"] == 3
    assert found["memory"]["budget_bytes"] == 64 << 20
    assert found["memory"]["background_reclaim"] is False
    assert found["poll"]["limit_us"] == 20
    answers = json.loads(program("ctl", mounted, "evict=deferred", "--json").out)
    assert answers == {"evict": "deferred"}
    answers = json.loads(program("ctl", mounted, "--json", "gc_workers=2", "commit=0.5", "memory=64M", "sync").out)
    assert answers == {"gc_workers": 2, "commit": 0.5, "memory": "64M", "sync": "synced"}


def test_help_names_every_key(command: Command) -> None:
    shown = command("ctl", "--help").out
    for key in LIVE:
        assert re.search(rf"\b{key}\b", shown), key


@pytest.mark.mounted
def test_actions(mounted: Path, program: Command) -> None:
    for number in range(50):
        (mounted / str(number)).write_bytes(bytes(10_000))
        (mounted / str(number)).unlink()
    outcome = program("ctl", mounted, "sync", "gc=push", "gc=flush", "drop_caches=1")
    assert outcome.code == 0
    found = json.loads(program("stat", mounted, "--json").out)
    assert found["gc"]["queued"] == 0
    assert found["gc"]["inactivated_total"] >= 50


@pytest.mark.mounted
@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("colour=blue", 1, "colour=blue"),
        ("commit=1000", 1, "commit must be a number from 0.1 to 300, not '1000'"),
        ("commit=0.01", 1, "commit must be a number from 0.1 to 300, not '0.01'"),
        ("evict=lazy", 1, "lazy"),
        ("commit=soon", 1, "commit must be a number"),
        ("gc_workers=0", 1, "gc_workers must be a whole number from 1"),
        ("gc_in_core=-1", 1, "gc_in_core must be a whole number from 0"),
        ("gc_workers=1.5", 1, "gc_workers must be a whole number from 1"),
        ("throttle_inodes=2e3", 1, "throttle_inodes must be a whole number"),
        ("throttle_extents=1.5", 1, "throttle_extents must be a whole number"),
        ("gc=flush:14.5", 1, "the inode of gc=flush must be a whole number"),
        ("memory=1", 1, "memory must be at least"),
        ("memory=lots", 1, "'lots' is not a size"),
        ("poll=1001", 1, "poll must be a whole number from 0 to 1000"),
        ("poll=20.7", 1, "poll must be a whole number from 0 to 1000"),
        ("background_reclaim=1", 1, "background_reclaim must be on or off, not '1'"),
        ("lockdep=off", 1, "lockdep must be report"),
        ("gc=dance", 1, "'dance'"),
    ],
)
def test_refused_settings(change: str, code: int, message: str, standing: Path, program: Command) -> None:
    outcome = program("ctl", standing, change)
    assert outcome.code == code
    assert message in outcome.err
    assert is_one_line(outcome.err)


@pytest.mark.parametrize("change", ["evict", "evict=", "=inline", ""])
def test_an_unknown_setting_is_refused_before_any_request(change: str, directory: Path, command: Command) -> None:
    outcome = command("ctl", directory, "evict=inline", change)
    assert outcome.code == 2
    assert "is not a setting; write KEY=VALUE, or sync" in outcome.err
    assert is_one_line(outcome.err)


def test_ctl_where_nothing_is_mounted(directory: Path, command: Command) -> None:
    outcome = command("ctl", directory, "evict=inline")
    assert outcome.code == 1
    assert "no deferfs is mounted here" in outcome.err


@pytest.mark.mounted
def test_a_timeline_is_recorded_where_the_caller_says(
    mounted: Path, tmp_path: Path, program: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program("ctl", mounted, "trace=trace.json").out == f"trace={tmp_path}/trace.json\n"
    (mounted / "file").write_text("content")
    assert json.loads(program("stat", mounted, "--json").out)["timeline"]["file"] == f"{tmp_path}/trace.json"
    refused = program("ctl", mounted, "trace=other.json")
    assert refused.code == 1
    assert is_one_line(refused.err)
    assert program("ctl", mounted, "trace=off").code == 0
    found = json.loads((tmp_path / "trace.json").read_text())
    assert "create" in {event["name"] for event in found}
    on_itself = program("ctl", mounted, f"trace={mounted}/trace.json")
    assert on_itself.code == 1
    assert "on the mount itself" in on_itself.err
    assert not (mounted / "trace.json").exists()


@pytest.mark.mounted
def test_the_report_of_lock_classes(mounted: Path, program: Command) -> None:
    outcome = program("ctl", mounted, "lockdep=report")
    assert outcome.code == 0
    assert "0 cycles\n" in outcome.out
    assert "circular waits broken: 0\n" in outcome.out
