"""The entry points: `deferfs`, and `mkfs.deferfs`, `fsck.deferfs`, `mount.deferfs` beside it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from deferfs.cli.outcome import FSCK, MOUNT, ORDINARY, Conventions, finish
from deferfs.cli.version import version_option

COMMANDS: Final = (
    "mkfs",
    "mount",
    "umount",
    "sync",
    "fsck",
    "info",
    "stat",
    "ctl",
    "run",
    "bench",
    "crash",
    "debug",
)
"""In the order of the help text. Each is the attribute `command` of the module of that name here."""
_CONVENTIONS: Final = {"mount": MOUNT, "fsck": FSCK}
"""Commands with exit codes of their own."""


class Commands(click.Group):
    """Imports the module of a command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Those that are installed, in the order of `COMMANDS`."""
        return [name for name in COMMANDS if importlib.util.find_spec(f"deferfs.cli.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return load(cmd_name)


def load(name: str, attribute: str = "command") -> click.Command:
    """The command in the module `name`."""
    found = getattr(importlib.import_module(f"deferfs.cli.{name}"), attribute)
    assert isinstance(found, click.Command)
    return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@version_option("-V", "--version")
def group() -> None:
    """A journaled filesystem that evicts inodes inline or deferred.

    `deferfs IMAGE DIR -o OPTIONS`, without a command, mounts: that is how mount(8) calls it.
    """


def run(arguments: Sequence[str]) -> int:
    """Run `deferfs` with `arguments`; the exit code."""
    words = list(arguments)
    if _is_mount_helper_call(words):
        words.insert(0, "mount")
    name = words[0] if words else ""
    return finish(
        lambda: group.main(words or ["--help"], prog_name="deferfs", standalone_mode=False),
        _CONVENTIONS.get(name, ORDINARY),
    )


def _is_mount_helper_call(words: list[str]) -> bool:
    """`deferfs IMAGE DIR ...`: mount.fuse gives no command. A command of that name wins over an image."""
    return len(words) >= 2 and not words[0].startswith("-") and words[0] not in COMMANDS


def run_program(command: click.Command, arguments: Sequence[str], conventions: Conventions) -> int:
    """Run a command that is a program of its own, such as `mkfs.deferfs`."""
    return finish(lambda: command.main(list(arguments), standalone_mode=False), conventions)


def main() -> NoReturn:
    """`deferfs`."""
    sys.exit(run(sys.argv[1:]))


def mkfs_main() -> NoReturn:
    """`mkfs.deferfs`."""
    sys.exit(run_program(load("mkfs"), sys.argv[1:], ORDINARY))


def fsck_main() -> NoReturn:
    """`fsck.deferfs`."""
    sys.exit(run_program(load("fsck"), sys.argv[1:], FSCK))


def mount_main() -> NoReturn:
    """`mount.deferfs`."""
    sys.exit(run_program(load("mount", "helper_command"), sys.argv[1:], MOUNT))
