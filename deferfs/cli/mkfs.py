"""`deferfs mkfs` and `mkfs.deferfs`."""

from __future__ import annotations

import click

from deferfs.cli.output import SIZE
from deferfs.cli.version import version_option
from deferfs.limits import BLOCK_SIZE_BYTES_DEFAULT


@click.command("mkfs", short_help="Make a filesystem.", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.option("--size", type=SIZE, help="Size of the filesystem; needed for a new image file.")
@click.option(
    "-b", "--block-size", type=SIZE, default=BLOCK_SIZE_BYTES_DEFAULT, show_default=True,
    help="Power of two from 1K to 64K.",
)  # fmt: skip
@click.option("--journal-size", type=SIZE, help="Default: 1/16 of the image, at most 64M.")
@click.option("-L", "--label", default="", help="At most 32 bytes.")
@click.option("-U", "--uuid", "uuid_text", metavar="UUID", help="Default: a random one.")
@click.option("-N", "--dry-run", is_flag=True, help="Print what would be made; change nothing.")
@click.option("-f", "--force", is_flag=True, help="Overwrite what the image holds.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@version_option("-V", "--version")
def command(
    image: str,
    size: int | None,
    block_size: int,
    journal_size: int | None,
    label: str,
    uuid_text: str | None,
    dry_run: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a filesystem on IMAGE: a new file of the given size, an existing file or a block device."""
    from deferfs.cli.format_image import Request, format_image
    from deferfs.cli.geometry import geometry_json, geometry_lines
    from deferfs.cli.output import say, say_json

    superblock = format_image(
        Request(image, size, block_size, journal_size, label, uuid_text, force=force),
        dry_run=dry_run,
    )
    if quiet:
        return
    if as_json:
        say_json(geometry_json(image, superblock, "clean"))
        return
    for line in geometry_lines(image, superblock, "clean"):
        say(line)
