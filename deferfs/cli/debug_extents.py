"""`deferfs debug extents`."""

from __future__ import annotations

import click

from deferfs.cli.debug_view import at_option, json_option


@click.command("extents", short_help="What a file maps.")
@click.argument("image")
@click.argument("what", metavar="INODE|PATH")
@at_option
@json_option
def command(image: str, what: str, tid: int | None, as_json: bool) -> None:
    """Show what a file maps: logical blocks, physical blocks, length; holes and unwritten extents are named."""
    from deferfs.cli.debug_view import viewed
    from deferfs.cli.output import counted, say, say_json
    from deferfs.ondisk.node import UNWRITTEN

    with viewed(image, tid) as view:
        inode = view.find(what)
        extents, nodes = view.extents(inode)
        if as_json:
            rows = [
                {"logical": e.logical, "physical": e.physical, "length": e.length, "flags": e.flags} for e in extents
            ]
            say_json({"ino": inode.ino, "size": inode.size, "blocks": inode.blocks, "nodes": nodes, "extents": rows})
            return
        at = 0
        for extent in extents:
            if extent.logical > at:
                say(f"{at:12} {'hole':>14} {extent.logical - at:10}")
            at = extent.end
            unwritten = " unwritten" if extent.flags & UNWRITTEN else ""
            say(f"{extent.logical:12} {extent.physical:14} {extent.length:10}{unwritten}")
        found = (counted(len(extents), "extent"), counted(nodes, "tree node"), counted(inode.blocks, "block"))
        say(f"inode {inode.ino}: {', '.join(found)} counted")
