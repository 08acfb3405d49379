"""`deferfs fsck` and `fsck.deferfs`."""

from __future__ import annotations

import sys

import click

from deferfs.cli.output import SIZE
from deferfs.cli.version import version_option
from deferfs.errors import UsageError


@click.command("fsck", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.option("-n", "look_only", is_flag=True, help="Check everything, change nothing.")
@click.option("-p", "-a", "preen", is_flag=True, help="Check what was not closed cleanly; make safe repairs.")
@click.option("-y", "repair", is_flag=True, help="Check everything, repair everything.")
@click.option("-f", "--force", is_flag=True, help="With -p: check a clean image too.")
@click.option("-D", "narrow", is_flag=True, help="With -y: give older directories readdir offsets of 31 bits.")
@click.option("-b", "spare", type=SIZE, metavar="BYTE", help="Take the spare superblock at this byte of the image.")
@click.option("-C", "progress_fd", metavar="FD", help="Show progress (0), or write it to this file descriptor.")
@click.option("--at", "tid", type=int, metavar="TID", help="Check the state after this transaction of the log.")
@click.option("-V", "-v", "verbose", is_flag=True, help="Print counts.")
@version_option()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    image: str,
    look_only: bool,
    preen: bool,
    repair: bool,
    force: bool,
    narrow: bool,
    spare: int | None,
    progress_fd: str | None,
    tid: int | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Check the image, which must not be mounted, and repair it.

    When both superblocks are lost, a spare one is searched for; "deferfs debug superblock" shows where they are.

    Without -n, -p and -y it asks before it repairs; without a terminal to ask on, it only checks.

    Exit codes, added up: 0 clean, 1 repaired, 4 problems left, 8 could not check, 16 usage, 32 interrupted. Replaying
    the log and finishing deletions is recovery, not repair: it ends in 0.
    """
    from deferfs.cli.check_progress import progress_to
    from deferfs.cli.check_run import Mode, check_past, run_check

    if look_only + preen + repair > 1:
        raise UsageError("only one of -n, -p (or -a) and -y can be given")
    if narrow and not repair:
        raise UsageError("-D can only be used with -y")
    if tid is not None and (preen or repair):
        raise UsageError("--at checks a past state, which cannot be repaired: it can only be used with -n")
    if tid is not None and spare is not None:
        raise UsageError("-b cannot be used with --at: a spare superblock does not record where the log begins")
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    unasked = Mode.ASK if on_terminal else Mode.LOOK
    mode = Mode.LOOK if look_only else Mode.PREEN if preen else Mode.REPAIR if repair else unasked
    progress = progress_to(image, progress_fd)
    if tid is not None:
        return check_past(image, tid, verbose=verbose, as_json=as_json, progress=progress)
    return run_check(
        image, mode, force=force, narrow=narrow, verbose=verbose, as_json=as_json, progress=progress, spare=spare
    )
