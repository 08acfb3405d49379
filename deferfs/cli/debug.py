"""`deferfs debug`: what is on the image, structure by structure."""

from __future__ import annotations

import importlib
from typing import Final

import click

from deferfs.cli.output import say

TOOLS: Final = ("superblock", "inode", "directory", "extents", "journal", "orphans", "bisect")
"""In the order of the help text. Each is the attribute `command` of the module `debug_NAME` here."""


class Tools(click.Group):
    """Imports the module of a tool only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of `TOOLS`."""
        return list(TOOLS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The tool, or None when there is none of that name."""
        if cmd_name not in TOOLS:
            return None
        found = getattr(importlib.import_module(f"deferfs.cli.debug_{cmd_name}"), "command")  # noqa: B009
        assert isinstance(found, click.Command)
        return found


@click.group("debug", cls=Tools, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def command(context: click.Context) -> None:
    """Show what is on an image that is not mounted, sound or damaged. Nothing is changed.

    The log is replayed in memory. With --at TID everything is shown as it was after that transaction of the log.
    """
    if context.invoked_subcommand is None:
        for line in context.get_help().splitlines():
            say(line)
