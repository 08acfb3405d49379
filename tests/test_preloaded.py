"""Commands in children of the preloaded process end as those that a user starts, and what they leave is found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deferfs.mount.control import client
from tests import preloaded
from tests.cli.conftest import environment_of_the_program

SECONDS_MAX = 60


@pytest.mark.parametrize("words", [["info", "none"], ["mkfs", "-q", "--size", "16M", "image"], ["fsck"]])
def test_command_ends_as_one_started_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Exit code and both outputs; in the directory of the caller."""
    found = []
    for name in ("preloaded", "afresh"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "preloaded":
            done = preloaded.run(words, SECONDS_MAX)
        else:
            program = [sys.executable, "-P", "-m", "deferfs", *words]
            environment = environment_of_the_program()
            done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
        found.append((done.returncode, done.stdout, done.stderr, [path.name for path in Path().iterdir()]))
    assert found[0] == found[1]


@pytest.mark.mounted
def test_command_has_the_environment_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is now, not as it was at the imports."""
    for value in ("first", "second"):
        monkeypatch.setenv("SAID", value)
        done = preloaded.run(["run", "--size", "16M", "--", "sh", "-c", "echo $SAID"], SECONDS_MAX)
        assert (done.returncode, done.stdout) == (0, f"{value}\n"), done.stderr


def test_command_that_takes_too_long_is_given_up_and_the_next_is_run() -> None:
    assert preloaded.run(["--version"], SECONDS_MAX).returncode == 0
    pid = preloaded.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it answers nothing now, however long the caller takes to look
    with pytest.raises(TimeoutError):
        preloaded.run(["--version"], 0.1)
    assert preloaded.pid() is None
    assert preloaded.run(["--version"], SECONDS_MAX).returncode == 0


@pytest.mark.mounted
def test_daemon_of_a_mount_has_the_mark_that_the_sweep_looks_for(tmp_path: Path) -> None:
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    for words in (["mkfs", "-q", "--size", "16M", str(image)], ["mount", str(image), str(mount)]):
        assert preloaded.run(words, SECONDS_MAX).returncode == 0
    pid = client.find_daemon(client.find_mount(str(mount))).pid
    assert preloaded.pid() not in (None, pid)
    assert f"{preloaded.MARK}={preloaded.mark()}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert preloaded.run(["umount", str(mount)], SECONDS_MAX).returncode == 0
