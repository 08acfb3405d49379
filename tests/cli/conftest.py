"""What the tests of the commands share: running them, and images to run them on."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import deferfs
from deferfs.cli.main import run
from tests import preloaded

IMAGE_SIZE = "16M"
SECONDS_MAX = 60


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `deferfs ARGUMENTS` inside of this process: quick, but not for commands that fork."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call


def run_program(*arguments: object, entry: str = "main", **environment: str) -> Outcome:
    """Run `deferfs ARGUMENTS` as a process of its own: in a test that mounts, where nothing else is said, one with the
    imports done."""
    if entry == "main" and not environment and preloaded.may_run():
        done = preloaded.run(list(map(str, arguments)), SECONDS_MAX)
        return Outcome(done.returncode, done.stdout, done.stderr)
    code = f"from deferfs.cli.main import {entry}; {entry}()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        env=environment_of_the_program(**environment),
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def program() -> Command:
    """Run `deferfs ARGUMENTS` as a process of its own."""
    return run_program


def environment_of_the_program(**more: str) -> dict[str, str]:
    """The environment, in which this tree's package is found from any directory."""
    root = Path(deferfs.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": str(root), **more}


@pytest.fixture
def image(tmp_path: Path, command: Command) -> Path:
    """A fresh image."""
    path = tmp_path / "image"
    assert command("mkfs", "-q", path, "--size", IMAGE_SIZE).code == 0
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    path = tmp_path / "mount"
    path.mkdir()
    return path


@pytest.fixture
def mounted(image: Path, directory: Path, program: Command) -> Iterator[Path]:
    """A fresh image, mounted; unmounted at the end if it still is."""
    outcome = program("mount", image, directory)
    assert outcome == Outcome(0, "", "")
    yield directory
    if os.path.ismount(directory):
        assert run(["umount", str(directory)]) == 0


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mount that the tests of a module share, which leave it as they find it."""
    base = tmp_path_factory.mktemp("standing")
    image, directory = base / "image", base / "mount"
    directory.mkdir()
    assert run_program("mkfs", "-q", image, "--size", IMAGE_SIZE).code == 0
    assert run_program("mount", image, directory) == Outcome(0, "", "")
    yield directory
    assert run_program("umount", directory).code == 0


def is_one_line(text: str) -> bool:
    """Errors are one line that names the program, and nothing like a traceback."""
    return text.startswith("deferfs: ") and text.count("\n") == 1 and text.endswith("\n")


def in_a_mount_namespace(*command: str) -> list[str]:
    """The command, run in a mount namespace of its own. Where the root directory is no mount point, what the kernel
    copies to and from it can be changed by no path, and is left as it is."""
    script = 'mount --make-rprivate / 2>/dev/null; exec "$@"'
    return ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", script, "sh", *command]
