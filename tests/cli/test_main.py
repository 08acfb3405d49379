"""The frame of all commands: help, version, names, and what becomes of errors."""

import errno
import subprocess
import sys
from pathlib import Path

import click
import pytest

from deferfs import __version__
from deferfs.cli import main
from deferfs.cli.outcome import FSCK, MOUNT, ORDINARY, Conventions, finish
from deferfs.errors import EnvironmentProblem, ImageError, UsageError
from tests.cli.conftest import Command, environment_of_the_program, is_one_line


def test_help_lists_every_command(command: Command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    for name in ("mkfs", "mount", "umount", "sync", "fsck", "info", "stat", "ctl", "run"):
        assert f"\n  {name} " in outcome.out


@pytest.mark.parametrize("name", ["mkfs", "mount", "umount", "sync", "fsck", "info", "stat", "ctl", "run"])
def test_every_command_has_help(name: str, command: Command) -> None:
    outcome = command(name, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: deferfs {name} ")


def test_version(command: Command) -> None:
    assert command("--version").out == f"deferfs, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["dance"], 2, "no such command 'dance'"),
        (["--dance"], 2, "no such option"),
        (["info"], 2, "missing argument 'IMAGE|DIR'; see deferfs info --help"),
        (["info", "a", "b"], 2, "got unexpected extra argument (b)"),
        (["mount", "a"], 1, "missing argument 'DIR'; see deferfs mount --help"),
        (["fsck"], 16, "missing argument 'IMAGE'; see deferfs fsck --help"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], code: int, message: str, command: Command) -> None:
    outcome = command(*arguments)
    assert outcome.code == code
    assert message in outcome.err
    assert is_one_line(outcome.err)
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("error", "conventions", "code"),
    [
        (UsageError("x"), ORDINARY, 2),
        (ImageError("x"), ORDINARY, 1),
        (EnvironmentProblem("x"), ORDINARY, 2),
        (OSError(errno.EACCES, "Permission denied", "/x"), ORDINARY, 1),
        (KeyError("x"), ORDINARY, 70),
        (KeyboardInterrupt(), ORDINARY, 130),
        (click.UsageError("x"), MOUNT, 1),
        (UsageError("x"), MOUNT, 1),
        (EnvironmentProblem("x"), MOUNT, 2),
        (ImageError("x"), MOUNT, 32),
        (KeyError("x"), MOUNT, 4),
        (KeyboardInterrupt(), MOUNT, 8),
        (UsageError("x"), FSCK, 16),
        (ImageError("x"), FSCK, 8),
        (KeyboardInterrupt(), FSCK, 32),
    ],
)
def test_the_exit_codes_of_errors(
    error: BaseException,
    conventions: Conventions,
    code: int,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DEFERFS_DEBUG", raising=False)

    def fail() -> None:
        raise error

    assert finish(fail, conventions) == code
    assert is_one_line(capfd.readouterr().err)


def test_details_of_a_bug_on_demand(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFERFS_DEBUG", "1")
    assert finish(lambda: 1 // 0, ORDINARY) == 70
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "helper"),
    [
        (["/image", "/mnt", "-o", "rw"], True),
        (["image", "mnt"], True),
        (["info", "image"], False),
        (["image"], False),
        (["--help"], False),
        ([], False),
    ],
)
def test_mount_fuse_gives_no_command(words: list[str], helper: bool) -> None:
    assert main._is_mount_helper_call(words) is helper


def test_a_reader_that_goes_away_is_no_error(image: Path) -> None:
    code = "from deferfs.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, "info", "--json", str(image)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment_of_the_program(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
