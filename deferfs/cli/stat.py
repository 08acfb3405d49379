"""`deferfs stat`."""

from __future__ import annotations

import sys
import time

import click


@click.command("stat")
@click.argument("directory", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one object a line.")
@click.option(
    "--watch",
    "seconds",
    type=click.FloatRange(min=0.1, max=86_400),
    metavar="SECONDS",
    help="Print again every SECONDS until interrupted or unmounted.",
)
def command(directory: str, as_json: bool, seconds: float | None) -> None:
    """Print live statistics of the mounted filesystem at DIR."""
    from deferfs.cli.output import say, say_json
    from deferfs.cli.stat_table import stat_lines
    from deferfs.mount import control_client

    mount = control_client.find_mount(directory)
    clear = seconds is not None and sys.stdout.isatty() and not as_json
    while True:
        statistics = control_client.ask(mount, "stat")
        if as_json:
            say_json(statistics, indent=None if seconds is not None else 2)
        else:
            if clear:
                click.clear()
            for line in stat_lines(statistics):
                say(line)
        if seconds is None:
            return
        if not as_json and not clear:
            say()
        time.sleep(seconds)
