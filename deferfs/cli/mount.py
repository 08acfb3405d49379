"""`deferfs mount`, `mount.deferfs`, and what mount(8) and mount.fuse call."""

from __future__ import annotations

import click

from deferfs.cli.setting_help import OPTION_SECTIONS, CommandWithSettings
from deferfs.cli.version import version_option


@click.command(
    "mount",
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=CommandWithSettings,
    sections=OPTION_SECTIONS,
    epilog="And ro, suid, dev and the others that mount(8) describes.\n\ndocs/command-line.md says more of each.",
)
@click.argument("image")
@click.argument("directory", metavar="DIR")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Mount options, comma separated.")
@click.option("-s", "--sloppy", is_flag=True, help="Ignore unknown mount options.")
@click.option("-v", "--verbose", is_flag=True, help="Say what has been mounted where.")
def command(
    image: str,
    directory: str,
    foreground: bool,
    options: tuple[str, ...],
    sloppy: bool,
    verbose: bool,
) -> None:
    """Mount IMAGE, an image file or a block device, on DIR.

    Returns when the mount is usable. The daemon stays in the background until the filesystem is unmounted.
    """
    from deferfs.cli.output import tell
    from deferfs.mount.daemon.start import start
    from deferfs.mount.host.options import parse_options

    parsed = parse_options(options, sloppy=sloppy)
    start(image, directory, parsed, foreground=foreground, notice=tell)
    if verbose and not foreground:
        tell(f"{image} is mounted on {directory}")


@click.command(
    "mount.deferfs",
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=CommandWithSettings,
    sections=OPTION_SECTIONS,
)
@click.argument("spec")
@click.argument("directory", metavar="DIR")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="Mount options, comma separated.")
@click.option("-f", "fake", is_flag=True, help="Check everything, but do not mount.")
@click.option("-s", "sloppy", is_flag=True, help="Ignore unknown mount options.")
@click.option("-n", "_no_mtab", is_flag=True, help="Ignored: there is no mtab to keep.")
@click.option("-v", "verbose", is_flag=True, help="Say what has been mounted where.")
@click.option("-t", "_fstype", metavar="TYPE", help="Ignored: there is only one type.")
@version_option("-V", "--version")
def helper_command(
    spec: str,
    directory: str,
    options: tuple[str, ...],
    fake: bool,
    sloppy: bool,
    _no_mtab: bool,
    verbose: bool,
    _fstype: str | None,
) -> None:
    """Mount SPEC on DIR for mount(8), which calls this for the type `deferfs`."""
    from deferfs.cli.output import tell
    from deferfs.mount.daemon.start import check, start
    from deferfs.mount.host.options import parse_options

    parsed = parse_options(options, sloppy=sloppy)
    if fake:
        check(spec, directory, parsed)
        return
    start(spec, directory, parsed, foreground=False, notice=tell)
    if verbose:
        tell(f"{spec} is mounted on {directory}")
