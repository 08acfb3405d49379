"""`deferfs sync`."""

from __future__ import annotations

import click


@click.command("sync")
@click.argument("directory", metavar="DIR")
def command(directory: str) -> None:
    """Make everything that was written to the filesystem at DIR durable.

    sync(1) cannot do that: the kernel does not pass it on to a filesystem in userspace.
    """
    from deferfs.mount.daemon.sync import sync

    sync(directory)
