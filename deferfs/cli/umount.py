"""`deferfs umount`."""

from __future__ import annotations

import click


@click.command("umount")
@click.argument("directory", metavar="DIR")
def command(directory: str) -> None:
    """Unmount DIR and wait until its image is clean.

    DIR may also be the image. When the mount is busy, names the processes that use it. A mount whose daemon has died is
    detached.
    """
    from deferfs.cli.output import tell
    from deferfs.mount.daemon.unmount import unmount

    unmount(directory, notice=tell)
