"""The tables of docs/on-disk-format.md."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = (Path(__file__).parents[1] / "docs" / "on-disk-format.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its two head lines."""
    text = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert text is not None, heading
    table = re.search(r"(?:^\|.*\n)+", text[1], re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def layout(heading: str) -> dict[str, tuple[int, int]]:
    """Field -> (offset, size) of a table of fields; size 0 where it varies."""
    found: dict[str, tuple[int, int]] = {}
    for offset, size, field in rows(heading):
        name = re.match(r"`(\w+)`", field)
        if name is not None:
            found[name[1]] = (int(offset), int(size) if size.isdecimal() else 0)
    return found
