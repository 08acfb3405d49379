"""`deferfs debug orphans`."""

from __future__ import annotations

import click

from deferfs.cli.debug_view import at_option, json_option


@click.command("orphans", short_help="Deleted inodes still to be freed.")
@click.argument("image")
@at_option
@json_option
def command(image: str, tid: int | None, as_json: bool) -> None:
    """Show the orphan table: inodes without a name that wait to be freed. With --json one object a line."""
    from deferfs.cli.debug_view import inode_words, viewed
    from deferfs.cli.output import counted, say, say_json
    from deferfs.errors import ImageError

    with viewed(image, tid) as view:
        count = 0
        for number, slot in view.orphans():
            count += 1
            if as_json:
                say_json({"slot": number, **slot._asdict()}, indent=None)
                continue
            try:
                words = inode_words(view.inode(slot.ino))
            except ImageError as error:
                words = str(error)
            say(f"slot {number}: generation {slot.generation}, flags {slot.flags}, cursor {slot.cursor}: {words}")
        if not as_json:
            say(counted(count, "orphan"))
