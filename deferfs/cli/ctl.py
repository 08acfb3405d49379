"""`deferfs ctl`."""

from __future__ import annotations

import os

import click


@click.command(
    "ctl",
    short_help="Change settings of a mounted filesystem.",
    epilog="Settings: evict=deferred|inline, commit=SECONDS, gc_workers=N, gc_in_core=N, gc_delay=SECONDS, gc_rate=N, "
    "memory=SIZE, "
    "background_reclaim=on|off, poll=MICROSECONDS, throttle_inodes=N, throttle_bytes=SIZE, throttle_extents=N, "
    "throttle_age=SECONDS, throttle_deadline=SECONDS, preallocation_lifetime=SECONDS, drain=SECONDS, "
    "freeze_limit=SECONDS, ro=1|0. "
    "Actions: sync, gc=push (start cleaning up now), gc=flush (and wait for it), gc=flush:INODE, gc=flush-below:INODE, "
    "gc=stop, gc=start, gc=retry, freeze=1 (the image is clean until thaw=1), thaw=1, drop_caches=1, "
    "lockdep=report (which waits happen while what is held), trace=FILE and trace=off (a timeline for "
    "ui.perfetto.dev). docs/command-line.md says more of each.",
)
@click.argument("directory", metavar="DIR")
@click.argument("changes", metavar="KEY=VALUE...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print what each setting is now as JSON.")
def command(directory: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change settings of the mounted filesystem at DIR, in the given order."""
    from deferfs.cli.output import say, say_json
    from deferfs.errors import UsageError
    from deferfs.mount.control import client
    from deferfs.mount.daemon.sync import sync

    pairs = [change.partition("=") for change in changes]
    for key, equals, value in pairs:
        if key != "sync" and not (key and equals and value):
            raise UsageError(f"{key!r} is not a setting; write KEY=VALUE, or sync")
    mount = client.find_mount(directory)
    answers = {}
    for key, _, value in pairs:
        if key == "sync":
            sync(directory)
            answers[key] = "synced"
        else:
            if key == "trace" and value != "off":
                value = os.path.abspath(value)
            answers[key] = client.ask(mount, "set", key=key, value=value)
        if not as_json:
            for line in answers[key].splitlines() if key == "lockdep" else [answers[key]]:  # the others answer in one
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
