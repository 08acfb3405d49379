"""`deferfs run`."""

from __future__ import annotations

import click

from deferfs.cli.output import SIZE
from deferfs.contract.settings import EVICT, EVICT_MODES


@click.command(
    "run",
    short_help="Run a command on a scratch mount.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--evict", type=click.Choice(EVICT_MODES), default=EVICT.default, show_default=True)
@click.option("--memory-limit", type=SIZE, help="Run COMMAND in a memory cgroup of this size.")
@click.option("--image", help="Use this image, and keep it; made when it does not exist.")
@click.option("--size", type=SIZE, default="1G", show_default=True, help="Size of the image to make.")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="More mount options.")
@click.option("--json", "json_file", metavar="FILE", help="Write the statistics to FILE.")
@click.option("-q", "--quiet", is_flag=True, help="No report.")
@click.argument("arguments", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    evict: str,
    memory_limit: int | None,
    image: str | None,
    size: int,
    options: tuple[str, ...],
    json_file: str | None,
    quiet: bool,
    arguments: tuple[str, ...],
) -> int:
    """Mount a scratch image, run COMMAND inside of it, unmount, and report on standard error.

    The working directory of COMMAND is the root of the mount: name files outside of it by absolute paths.

    Ends with the exit code of COMMAND (128 + the signal that killed it). Whatever happens, the mount is removed,
    and so is the image unless it was given.
    """
    from deferfs.cli.scratch import Scratch, run_in_scratch

    return run_in_scratch(Scratch(evict, memory_limit, image, size, options, json_file, quiet=quiet), arguments)
