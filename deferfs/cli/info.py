"""`deferfs info`."""

from __future__ import annotations

import os

import click


@click.command("info")
@click.argument("target", metavar="IMAGE|DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(target: str, as_json: bool) -> None:
    """Print the geometry of an image, as mkfs did, mounted or not."""
    from deferfs.cli.geometry import geometry_json, geometry_lines, state_of
    from deferfs.cli.output import say, say_json
    from deferfs.device.identity import identity_of
    from deferfs.errors import ImageError
    from deferfs.mount.control import client
    from deferfs.mount.daemon.image import peek_superblock
    from deferfs.mount.host import mountinfo

    mount = mountinfo.find_deferfs(target)
    image = target if mount is None else mount.source
    if mount is None:
        mount = client.find_image(target)
    else:
        known = client.image_of(mount)
        if known is not None and not (os.path.exists(image) and identity_of(image) == known):
            raise ImageError(f"{image}: the image of {mount.mountpoint} was moved, replaced or deleted meanwhile")
    superblock = peek_superblock(image)
    state = state_of(superblock) if mount is None else "dead" if client.has_died(mount) else "mounted"
    if as_json:
        description = geometry_json(image, superblock, state)
        description["mountpoint"] = None if mount is None else mount.mountpoint
        say_json(description)
        return
    if mount is not None and state == "dead":
        state = f"dead: its daemon has died; deferfs umount {mount.mountpoint} detaches the mount"
    for line in geometry_lines(image, superblock, state):
        say(line)
