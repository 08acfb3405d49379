"""tests/run runs every step and sums up; tests/setup-environment says what it does, and waits for apt-get."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def call(tree: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=tree,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def programs_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines in which they say so."""
    return [line for line in done.stdout.splitlines() if line.startswith("ran ")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with the real scripts; its environment has tools that do as FAILING says."""
    for name in ("run", "setup-environment", "bare-root"):
        (tmp_path / "tests").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    (tmp_path / "tests" / "programs.txt").write_text("compare tool tool\ntests other other\n")
    for name in ("ruff", "lint-imports", "mypy", "python"):
        script(
            tmp_path / ".venv" / "bin" / name,
            f'echo "ran {name} $*"; [[ "{name} $*" == *"$FAILING"* ]] && exit "${{CODE-3}}"; true',
        )
    return tmp_path


@pytest.mark.parametrize(
    "failing",
    ["ruff check", "ruff format", "lint-imports", "mypy", "not compiled -n 2", "mounted or compiled", "nothing"],
)
def test_every_step_is_run_and_summed_up(tree: Path, failing: str) -> None:
    script(tree / "tests" / "setup-environment", "")
    done = call(tree, "tests/run", FAILING=failing)
    assert done.returncode == (failing != "nothing")
    assert len(programs_run(done)) == 6
    summary = done.stdout.splitlines()[-6:]
    assert [line.split()[0] for line in summary].count("FAILED") == (failing != "nothing")
    assert all(failing in line and "exit code 3" in line for line in summary if line.startswith("FAILED"))


@pytest.mark.parametrize("code", [0, 3])
def test_a_long_run_builds_the_documentation(tree: Path, code: int) -> None:
    script(tree / "tests" / "setup-environment", 'echo "set up $*"')
    script(tree / "tests" / "build-site", f'echo "ran build-site"; exit {code}')
    done = call(tree, "tests/run", "--long", FAILING="nothing")
    assert done.returncode == (code != 0)
    assert "set up long\n" in done.stdout
    assert len(programs_run(done)) == 7
    assert sum("-m pytest" in line and " --long " in line for line in programs_run(done)) == 2
    assert done.stdout.splitlines()[-1].startswith("FAILED  tests/build-site" if code else "passed  tests/build-site")


def test_an_interrupt_ends_it(tree: Path) -> None:
    script(tree / "tests" / "setup-environment", "")
    done = call(tree, "tests/run", FAILING="ruff format", CODE="130")
    assert done.returncode == 130
    assert len(programs_run(done)) == 2


@pytest.mark.parametrize("revision", ["", " (revision a15ba36d2567)"])
def test_results_go_to_a_directory_named_by_the_version(tree: Path, revision: str) -> None:
    (tree / "bench").mkdir()
    shutil.copy(ROOT / "bench" / "run", tree / "bench" / "run")
    script(tree / "tests" / "setup-environment", "")
    version = f'echo "deferfs, version 0.2.0{revision}"'
    script(tree / ".venv" / "bin" / "deferfs", f'[[ $1 == --version ]] && {version} || echo "ran $*"')
    done = call(tree, "bench/run", "close", "--json", "mine.json")
    assert done.stdout == f"ran bench close --json mine.json --html {tree}/bench/results/0.2.0/close.html\n"


APT = """
[[ $1 == update ]] && echo >> updates
if [[ $1 == update && $(cat updates | wc -l) == 1 ]]; then
    echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (other)"
    exit 100
elif [[ $1 == install ]]; then
    echo "Reading lists: noise"
    echo "Setting up tool (1.0) ..."
    echo "$*" > installed
    exit "$APT_CODE"
fi
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
@pytest.mark.parametrize("code", [0, 100])
def test_packages_are_waited_for_and_shown(tree: Path, tmp_path: Path, code: int) -> None:
    script(tmp_path / "bin" / "apt-get", APT)
    script(tmp_path / "bin" / "dpkg-query", "echo none")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = call(tree, "tests/setup-environment", "--packages", "compare", PATH=path, APT_CODE=str(code))
    assert done.returncode == code
    assert "setup: waiting for another package manager" in done.stdout
    assert "setup:   set up tool 1.0" in done.stdout or "setup:   set up tool (1.0)" in done.stdout
    assert ("noise" in done.stdout) == bool(code)  # all of it when it fails
    words = (tree / "installed").read_text().split()
    assert words[-1] == "tool"
    assert any(word.startswith("DPkg::Lock::Timeout=") for word in words)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_two_in_one_clone_take_turns(tree: Path, tmp_path: Path) -> None:
    """What the first one has started holds the lock: here the apt-get that it waits for."""
    os.mkfifo(tree / "fifo")
    script(tmp_path / "bin" / "apt-get", "[[ $1 == update ]] || { echo 'Setting up tool (1) ...'; cat fifo; }")
    script(tmp_path / "bin" / "dpkg-query", "echo none")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    (tree / "tests" / "programs.txt").write_text("tests tool tool\n")
    words = ["tests/setup-environment"]
    with subprocess.Popen(words, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert "setup:   set up tool (1)\n" in first.stdout, "its apt-get waits now"
        with subprocess.Popen(words, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "setup: waiting for another tests/setup-environment in this clone\n"
            first.terminate()
            assert first.wait() == -15
            assert second.poll() is None, "the apt-get of the one that was killed is still at work"
            (tree / "fifo").write_text("")
            assert second.stdout.readline() == "setup: updating the lists of packages\n"
            (tree / "fifo").write_text("")
            second.wait()


def test_no_other_releases_are_made(tree: Path) -> None:
    done = call(tree, "tests/run", "--bare", "11")
    assert (done.returncode, done.stdout) == (2, "bare-root: no release 11; there are 12 and 13\n")
