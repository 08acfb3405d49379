"""`deferfs ctl`."""

from __future__ import annotations

import os

import click

from deferfs.cli.setting_help import LIVE_SECTIONS, CommandWithSettings
from deferfs.contract.settings import LOCKDEP, SYNC, TRACE


@click.command(
    "ctl",
    short_help="Change settings of a mounted filesystem.",
    cls=CommandWithSettings,
    sections=LIVE_SECTIONS,
    epilog="docs/command-line.md says more of each.",
)
@click.argument("directory", metavar="DIR")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print what each setting is now as JSON.")
def command(directory: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change settings of the mounted filesystem at DIR, in the given order."""
    from deferfs.cli.output import say, say_json
    from deferfs.contract.requests import Set
    from deferfs.errors import UsageError
    from deferfs.mount.control import client
    from deferfs.mount.daemon.sync import sync

    pairs = [change.partition("=") for change in changes]
    for key, equals, value in pairs:
        if key != SYNC.key and not (key and equals and value):
            raise UsageError(f"{key!r} is not a setting; write KEY=VALUE, or sync")
    mount = client.find_mount(directory)
    answers = {}
    for key, _, value in pairs:
        if key == SYNC.key:
            sync(directory)
            answers[key] = "synced"
        else:
            if key == TRACE.key and value != TRACE.default:
                value = os.path.abspath(value)
            answers[key] = client.ask(mount, Set(key=key, value=value))
        if not as_json:
            for line in answers[key].splitlines() if key == LOCKDEP.key else [answers[key]]:  # the others answer in one
                say(line)
    if as_json:
        say_json({key: _value(answer.removeprefix(f"{key}=")) for key, answer in answers.items()})


def _value(text: str) -> object:
    """A number where it is one."""
    for kind in (int, float) if text[:1].isdigit() else ():
        try:
            return kind(text)
        except ValueError:
            pass
    return text
