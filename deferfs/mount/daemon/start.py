"""Starting a mount: the checks that need no daemon, then the daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from deferfs.mount.daemon.fork import Handshake, NoHandshake, run_in_background
from deferfs.mount.daemon.image import peek_superblock
from deferfs.mount.host import mountinfo, mountpoint, own_mounts
from deferfs.mount.host.options import MountOptions


def check(image: str, directory: str, options: MountOptions) -> None:
    """All checks that are possible without mounting. Raises what `start` would raise."""
    options.check_possible(os.geteuid())
    mountpoint.check_environment()
    mountpoint.check_mountpoint(directory)
    peek_superblock(image)


def start(
    image: str,
    directory: str,
    options: MountOptions,
    *,
    foreground: bool,
    notice: Callable[[str], None],
) -> None:
    """Mount `image` on `directory`; returns when the mount is usable or, in the foreground, when it has ended.

    Any DeferfsError means that nothing is mounted and the image is as before (or recovered).
    """
    check(image, directory, options)
    image, directory = os.path.realpath(image), os.path.realpath(directory)
    if options.log is not None:
        options = replace(options, log=os.path.abspath(options.log))

    def serve(handshake: Handshake) -> None:
        from deferfs.mount.daemon.session import serve_mount

        serve_mount(image, directory, options, handshake, foreground=foreground, notice=notice)

    if foreground:
        serve(NoHandshake())
        return
    try:
        run_in_background(serve)
    except BaseException:
        _remove_dead_mount(image, directory)
        raise


def _remove_dead_mount(image: str, directory: str) -> None:
    """Remove the mount of a daemon that was killed while it started. `check` has made sure that there was none
    before."""
    found = mountinfo.at(directory, mountinfo.read())
    if found is None or not found.is_deferfs or found.source != image:
        return
    try:
        os.statvfs(directory)
    except OSError as error:
        if mountpoint.is_dead(error):
            own_mounts.detach(found, privileged=os.geteuid() == 0)
