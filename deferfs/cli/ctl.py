"""`deferfs ctl`."""

from __future__ import annotations

import os

import click


@click.command(
    "ctl",
    epilog="Settings: evict=deferred|inline, commit=SECONDS, gc_workers=N, memory=SIZE, poll=MICROSECONDS. "
    "Actions: sync, gc=push (start cleaning up now), gc=flush (and wait for it), drop_caches=1, "
    "lockdep=report (which waits happen while what is held), trace=FILE and trace=off "
    "(a timeline for ui.perfetto.dev).",
)
@click.argument("directory", metavar="DIR")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print what each setting is now as JSON.")
def command(directory: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change settings of the mounted filesystem at DIR, in the given order."""
    from deferfs.cli.output import say, say_json
    from deferfs.errors import UsageError
    from deferfs.mount import control_client
    from deferfs.mount.sync import sync

    pairs = [change.partition("=") for change in changes]
    for key, equals, value in pairs:
        if key != "sync" and not (key and equals and value):
            raise UsageError(f"{key!r} is not a setting; write KEY=VALUE, or sync")
    mount = control_client.find_mount(directory)
    answers = {}
    for key, _, value in pairs:
        if key == "sync":
            sync(directory)
            answers[key] = "synced"
        else:
            if key == "trace" and value != "off":
                value = os.path.abspath(value)
            answers[key] = control_client.ask(mount, "set", key=key, value=value)
        if not as_json:
            for line in answers[key].splitlines() if key == "lockdep" else [answers[key]]:  # the others answer in one
                say(line)
    if as_json:
        say_json(answers)
