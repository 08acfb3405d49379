"""`deferfs debug inode`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import click

from deferfs.cli.debug_view import at_option, json_option

if TYPE_CHECKING:
    from deferfs.check.view import View
    from deferfs.ondisk.inode import Inode

_NUMBERS = (
    "ino", "generation", "mode", "uid", "gid", "nlink", "flags", "size", "blocks", "rdev", "parent", "xattr_block",
    "orphan_slot", "form",
)  # fmt: skip
_TIMES = ("atime", "mtime", "ctime", "crtime")
_FORMS = ("none", "inline bytes", "inline extents", "extent tree", "inline entries", "directory tree")


@click.command("inode", short_help="The record of an inode.")
@click.argument("image")
@click.argument("what", metavar="INODE|PATH")
@at_option
@json_option
def command(image: str, what: str, tid: int | None, as_json: bool) -> None:
    """Show the record of an inode, where it lies, and its extended attributes."""
    from deferfs.cli.debug_view import viewed
    from deferfs.cli.output import say, say_json

    with viewed(image, tid) as view:
        inode = view.find(what)
        if as_json:
            say_json(_json(view, inode))
            return
        for line in _lines(view, inode):
            say(line)


def _json(view: View, inode: Inode) -> dict[str, object]:
    from deferfs.cli.debug_view import name_json

    address, slot = view.locate(inode.ino)
    found: dict[str, object] = {"block": address, "index": slot}
    found |= {name: getattr(inode, name) for name in (*_NUMBERS, *_TIMES)}
    found["root"] = inode.root
    found["inline_base64"] = base64.b64encode(inode.inline).decode("ascii")
    found["xattrs"] = [
        {**name_json(name), "value_base64": base64.b64encode(value).decode("ascii")}
        for name, value in view.xattrs(inode).items()
    ]
    return found


def _lines(view: View, inode: Inode) -> list[str]:
    from deferfs.cli.debug_view import inode_words, time_text
    from deferfs.printable import printable

    address, slot = view.locate(inode.ino)
    lines = [f"{inode_words(inode)}, in block {address}, record {slot}"]
    for name in _NUMBERS[1:]:
        value = getattr(inode, name)
        text = f"{value:#o}" if name == "mode" else str(value)
        lines.append(f"  {name:12} {text}{f' ({_FORMS[value]})' if name == 'form' else ''}")
    if inode.root:
        lines.append(f"  {'root':12} {inode.root}")
    if inode.inline:
        lines.append(f"  {'inline':12} {len(inode.inline)} bytes")
    lines += [f"  {name:12} {time_text(getattr(inode, name))}" for name in _TIMES]
    lines += [f"  xattr        {printable(name)}: {len(value)} bytes" for name, value in view.xattrs(inode).items()]
    return lines
