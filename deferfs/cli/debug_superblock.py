"""`deferfs debug superblock`."""

from __future__ import annotations

import dataclasses

import click

from deferfs.cli.debug_view import json_option


@click.command("superblock", short_help="Both superblocks.")
@click.argument("image")
@json_option
def command(image: str, as_json: bool) -> int:
    """Show every field of both superblocks, and which of them counts. Ends in 1 when neither does."""
    from deferfs.cli.debug_view import opened
    from deferfs.cli.output import json_path, say, say_json
    from deferfs.errors import DeviceError, ImageError
    from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
    from deferfs.ondisk.superblock import Superblock

    copies: list[tuple[int, Superblock | None, str]] = []
    with opened(image) as device:
        for offset in SUPERBLOCK_OFFSETS:
            try:
                copies.append((offset, Superblock.decode(device.read(offset, SUPERBLOCK_BYTES)), ""))
            except (ImageError, DeviceError) as error:
                copies.append((offset, None, str(error)))
    newest = max((found.sequence for _, found, _ in copies if found is not None), default=-1)
    code = 1 if newest < 0 else 0
    rows = [(offset, None if found is None else _fields(found), reason) for offset, found, reason in copies]
    if as_json:
        say_json(
            {
                **json_path("image", image),
                "copies": [
                    {"offset": offset, "counts": bool(f and f["sequence"] == newest), "error": reason, "fields": f}
                    for offset, f, reason in rows
                ],
            }
        )
        return code
    for offset, fields, reason in rows:
        if fields is None:
            say(f"copy at byte {offset}: {reason}")
            continue
        counts = ", the one that counts" if fields["sequence"] == newest else ""
        say(f"copy at byte {offset}{counts}")
        for name, value in fields.items():
            say(f"  {name:22} {value}")
    return code


def _fields(superblock: object) -> dict[str, object]:
    """Field -> value; bytes as hexadecimal digits, the label as text."""
    assert dataclasses.is_dataclass(superblock) and not isinstance(superblock, type)
    found: dict[str, object] = {}
    for field in dataclasses.fields(superblock):
        value = getattr(superblock, field.name)
        if field.name == "label":
            value = value.decode("utf-8", "backslashreplace")
        elif isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, tuple):
            value = [list(region) for region in value]
        found[field.name] = value
    return found
