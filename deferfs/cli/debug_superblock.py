"""`deferfs debug superblock`."""

from __future__ import annotations

import dataclasses

import click

from deferfs.cli.debug_view import json_option


@click.command("superblock", short_help="Both superblocks and the spare ones.")
@click.argument("image")
@json_option
def command(image: str, as_json: bool) -> int:
    """Show every field of both superblocks, which of them counts, and where spare ones are: what fsck -b takes. Ends in
    1 when neither counts.
    """
    from deferfs.check.spares import find_spares, spare_at
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
        best = max((found for _, found, _ in copies if found), key=lambda found: found.sequence, default=None)
        if best is None:
            spares = [(spare.offset, True) for spare in find_spares(device)]
        else:
            offsets = [address * best.block_size for address in best.spares]
            spares = [(offset, spare_at(device, offset) is not None) for offset in offsets]
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
                "spares": [{"offset": offset, "whole": whole} for offset, whole in spares],
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
    for offset, whole in spares:
        say(f"spare at byte {offset}{'' if whole else ': damaged'}")
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
            value = [list(item) if isinstance(item, tuple) else item for item in value]
        found[field.name] = value
    return found
