"""`deferfs stat`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from deferfs.cli.output import Number, Whole

if TYPE_CHECKING:
    from deferfs.mount.host.mountinfo import Mount


@click.command("stat")
@click.argument("directory", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one object a line.")
@click.option(
    "--watch",
    "seconds",
    type=Number(min=0.1, max=86_400),
    metavar="SECONDS",
    help="Print again every SECONDS until interrupted or unmounted.",
)
@click.option("--inode", type=Whole(min=1), metavar="INO", help="Everything about one inode, and why it is not freed.")
@click.option("--prometheus", is_flag=True, help="Print metrics in the text format of Prometheus.")
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="With --prometheus: serve the metrics by HTTP there until interrupted or unmounted.",
)
def command(
    directory: str, as_json: bool, seconds: float | None, inode: int | None, prometheus: bool, listen: str | None
) -> None:
    """Print live statistics of the mounted filesystem at DIR."""
    from deferfs.errors import UsageError
    from deferfs.mount.control import client

    if prometheus and (as_json or inode is not None):
        raise UsageError("--prometheus is a format of its own: not with --json or --inode")
    if listen is not None and (not prometheus or seconds is not None):
        raise UsageError("--listen goes with --prometheus, and not with --watch")
    mount = client.find_mount(directory)
    if listen is not None:
        from deferfs.cli.exporter import serve

        serve(mount, listen)
        return
    clear = seconds is not None and sys.stdout.isatty() and not as_json
    while True:
        if clear:
            click.clear()
        _print(mount, as_json, seconds is not None, inode, prometheus)
        if seconds is None:
            return
        time.sleep(seconds)


def _print(mount: Mount, as_json: bool, again: bool, inode: int | None, prometheus: bool) -> None:
    """Print once. `again`: more output follows."""
    from deferfs.cli.output import say, say_json
    from deferfs.cli.stat_table import inode_lines, stat_lines
    from deferfs.contract.requests import GetInode, GetStatistics
    from deferfs.mount.control import client

    if as_json:  # as the daemon sends it: the reader checks `schema`
        asked = GetStatistics() if inode is None else GetInode(number=str(inode))
        say_json(client.ask_untyped(mount, asked), indent=None if again else 2)
        return
    if prometheus:
        from deferfs.cli.exporter import metrics_text

        lines = iter(metrics_text(client.statistics(mount)).splitlines())
    elif inode is None:
        lines = stat_lines(client.statistics(mount))
    else:
        lines = inode_lines(client.ask(mount, GetInode(number=str(inode))))
    for line in lines:
        say(line)
    if again and not sys.stdout.isatty():
        say()
