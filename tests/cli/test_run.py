"""`deferfs run`."""

import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import Command, is_one_line


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch images are made during a test."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path


@pytest.mark.mounted
def test_a_command_runs_on_a_scratch_mount_that_is_gone_afterwards(home: Path, program: Command) -> None:
    script = "stat -f -c %T . && pwd && echo hello > a && cat a && exit 3"
    outcome = program("run", "--size", "16M", "--", "sh", "-c", script)
    kind, where, content = outcome.out.splitlines()
    assert outcome.code == 3
    assert kind == "fuseblk" or kind == "fuse"
    assert where.startswith(f"{home}/")
    assert content == "hello"
    assert "create" in outcome.err
    assert "evict deferred" in outcome.err
    assert os.listdir(home) == []


@pytest.mark.mounted
def test_the_memory_limit_is_that_of_a_cgroup(home: Path, program: Command) -> None:
    outcome = program(
        "run", "-q", "--size", "16M", "--memory-limit", "64M", "--evict", "inline", "--",
        "grep", "deferfs-run", "/proc/self/cgroup",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.err == ""
    assert "deferfs-run-" in outcome.out


@pytest.mark.mounted
def test_a_given_image_is_made_and_kept(home: Path, tmp_path: Path, program: Command) -> None:
    image, report = tmp_path / "kept", tmp_path / "report"
    words = ["run", "-q", "--image", image, "--size", "16M", "--json", report, "--"]
    assert program(*words, "touch", "file").code == 0
    outcome = program(*words, "ls")
    assert outcome.out == "file\n"
    assert json.loads(report.read_text())["evict"] == "deferred"
    assert program("fsck", "-n", image).code == 0


@pytest.mark.mounted
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["no-such-command"], 127),
        (["/etc"], 126),
        (["sh", "-c", "kill -TERM $$"], 128 + 15),
        (["false"], 1),
    ],
)
def test_the_exit_code_is_that_of_the_command(command: list[str], code: int, home: Path, program: Command) -> None:
    assert program("run", "-q", "--size", "16M", "--", *command).code == code
    assert os.listdir(home) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "missing argument"),
        (["--evict", "lazy", "--", "true"], 2, "'lazy' is not one of"),
        (["--memory-limit", "lots", "--", "true"], 2, "'lots' is not a size"),
        (["--size", "1K", "--", "true"], 2, "size too small"),
        (["-o", "colour=blue", "--", "true"], 2, "unknown mount option"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], code: int, message: str, home: Path, command: Command) -> None:
    outcome = command("run", *arguments)
    assert outcome.code == code
    assert message in outcome.err
    assert is_one_line(outcome.err)
    assert os.listdir(home) == []


@pytest.mark.mounted
def test_its_mount_is_seen_by_no_other_process(home: Path, program: Command) -> None:
    """Not even with shared propagation: a mount namespace that is made meanwhile has no copy that holds the image."""
    look = "grep -q $PWD /proc/self/mountinfo && ! grep -q $PWD /proc/$0/mountinfo"
    outcome = program("run", "-q", "--", "sh", "-c", look, os.getpid())
    assert outcome.code == 0
