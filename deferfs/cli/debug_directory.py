"""`deferfs debug directory`."""

from __future__ import annotations

import click

from deferfs.cli.debug_view import at_option, json_option


@click.command("directory", short_help="Entries as they are stored.")
@click.argument("image")
@click.argument("what", metavar="INODE|PATH")
@at_option
@json_option
def command(image: str, what: str, tid: int | None, as_json: bool) -> None:
    """Show the entries of a directory as they are stored: key, inode, type, name. With --json one object a line."""
    from deferfs.cli.debug_view import name_json, type_name, viewed
    from deferfs.cli.output import counted, say, say_json
    from deferfs.printable import printable

    with viewed(image, tid) as view:
        count = 0
        inode = view.find(what)
        for entry in view.entries(inode):
            count += 1
            if as_json:
                described = {"key": entry.key, "ino": entry.ino, "file_type": entry.file_type, **name_json(entry.name)}
                say_json(described, indent=None)
            else:
                say(f"{entry.key:19} {entry.ino:10} {type_name(entry.file_type):9} {printable(entry.name)}")
        if not as_json:
            say(f"directory {inode.ino}: {counted(count, 'entry', 'entries')}")
