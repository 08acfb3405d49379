"""The frame of all commands: help, version, names, and what becomes of errors."""

import errno
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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
    for name in main.COMMANDS:
        assert f"\n  {name} " in outcome.out


@pytest.mark.parametrize("name", main.COMMANDS)
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


@pytest.mark.parametrize(("entry", "words", "code"), [
    ("main", ["mkfs"], 130), ("main", ["mount"], 8), ("main", ["fsck"], 32), ("mkfs_main", [], 130),
    ("fsck_main", [], 32), ("mount_main", [], 8),
])  # fmt: skip
@pytest.mark.parametrize(
    "module", ["deferfs.cli.main", "click", "deferfs.cli.mkfs", "deferfs.cli.mount", "deferfs.cli.fsck"]
)
def test_an_interrupt_while_modules_are_loaded(module: str, entry: str, words: list[str], code: int) -> None:
    """One line, as later; a module that is not loaded ends the test the same way, by its usage error."""
    program = (
        "import sys, importlib.abc\n"
        "class Interrupt(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"from deferfs.cli.entry import {entry}\n{entry}()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        capture_output=True, text=True, check=False, env=environment_of_the_program(),
    )  # fmt: skip
    said = done.stderr.removeprefix("\n")  # where click is at work, it leaves the line of the ^C first
    assert is_one_line(said), said
    if "missing argument" not in said:
        assert (said, done.returncode) == ("deferfs: interrupted\n", code)


def test_the_installed_programs_are_those() -> None:
    root = Path(main.__file__).parents[2]
    if not (root / "pyproject.toml").exists():
        pytest.skip("only in the source tree")
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert all(place.startswith("deferfs.cli.entry:") for place in scripts.values())


@pytest.mark.parametrize("entry", ["main", "mkfs_main", "fsck_main", "mount_main"])
@pytest.mark.parametrize("option", ["-V", "--version"])
def test_every_program_tells_its_version(option: str, entry: str, program: Command) -> None:
    if (entry, option) == ("fsck_main", "-V"):
        option = "--version"  # -V is "verbose" to fsck(8)
    assert program(option, entry=entry).out == f"deferfs, version {__version__}\n"


def test_no_summary_is_cut(command: Command) -> None:
    for words in (["--help"], ["debug", "--help"], ["crash", "--help"]):
        assert "..." not in command(*words).out.partition("Commands:")[2]


def test_a_word_that_is_no_size_names_all_units(command: Command) -> None:
    assert "K, M, G, T or P" in command("mkfs", "--size", "large", "x").err


def options_with_bounds(group: click.Command, words: str) -> Iterator[tuple[str, str]]:
    """Every option below `group` that takes a number between bounds, after the words of its command."""
    for param in group.params:
        if isinstance(param.type, click.IntRange | click.FloatRange):
            yield words, param.opts[0]
    for name, found in getattr(group, "commands", {}).items():
        yield from options_with_bounds(found, f"{words} {name}")


@pytest.mark.parametrize(
    ("words", "option"), [pair for name in main.COMMANDS for pair in options_with_bounds(main.load(name), name)]
)
def test_a_word_that_is_no_number_is_called_so(words: str, option: str, command: Command) -> None:
    found = command(*words.split(), option, "abc")
    assert found.code == 2
    assert re.fullmatch(
        rf"deferfs: invalid value for '{option}': 'abc' is not a valid (whole )?number; .*\n", found.err
    )


@pytest.mark.parametrize(("conventions", "code"), [(ORDINARY, 1), (MOUNT, 32)])
def test_a_broken_pipe_that_is_not_the_output_is_told(
    conventions: Conventions, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """One to a process of ours, say: the command has failed, and no reader has had enough."""

    def command() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert finish(command, conventions) == code
    assert capfd.readouterr().err == "deferfs: [Errno 32] Broken pipe\n"
