"""`deferfs fsck` and `fsck.deferfs`."""

from __future__ import annotations

import click

from deferfs.errors import UsageError


@click.command("fsck", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.option("-n", "look_only", is_flag=True, help="Check everything, change nothing (the default).")
@click.option("-p", "-a", "preen", is_flag=True, help="Recover if that is needed; check what was unclean.")
@click.option("-y", "repair", is_flag=True, help="Recover, then check everything.")
@click.option("-f", "--force", is_flag=True, help="Check everything even if the image is clean.")
@click.option("-C", "_progress_fd", metavar="FD", help="For fsck(8): ignored.")
@click.option("-V", "-v", "verbose", is_flag=True, help="Print counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    image: str,
    look_only: bool,
    preen: bool,
    repair: bool,
    force: bool,
    _progress_fd: str | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Check the image, which must not be mounted.

    Exit codes: 0 clean, 4 problems left, 8 could not check, 16 usage. Replaying the log and finishing deletions is
    recovery, not repair: it ends in 0.
    """
    from deferfs.cli.check_run import Mode, run_check

    if look_only + preen + repair > 1:
        raise UsageError("only one of -n, -p (or -a) and -y can be given")
    mode = Mode.PREEN if preen else Mode.REPAIR if repair else Mode.LOOK
    return run_check(image, mode, force=force, verbose=verbose, as_json=as_json)
