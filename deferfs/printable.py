"""Untrusted text (names of files and processes, paths, labels), escaped for one line on a terminal or in a log.

A name may hold any bytes but `/` and zero: line ends that forge further lines, escape sequences that a terminal obeys,
characters that turn the direction of writing. All of these are shown as Python writes them in a string: `\\n`, `\\x1b`,
`\\u202e`; a byte that is not UTF-8 as `\\xff`. What a person can read stays as it is, in any script.

A backslash stays as well, so the result is for reading, not for finding the file again (JSON output has the exact
bytes), and to apply it twice does what applying it once does.
"""

from __future__ import annotations

import re
from typing import Final

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_BYTE: Final = 0xDC00
"""os.fsdecode makes U+DC80 to U+DCFF of bytes that are not UTF-8."""


def printable(text: str | bytes) -> str:
    """`text` on one line, without control, format and unassigned characters, encodable as UTF-8. Bytes are taken for
    UTF-8 where they are."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def encodable(text: str) -> str:
    """`text` with `?` for each byte that is not UTF-8, as JSON output has names: lone surrogates are no text."""
    return _SURROGATES.sub("?", text)


def _escaped(character: str) -> str:
    code = ord(character)
    if _BYTE + 0x80 <= code <= _BYTE + 0xFF:
        return f"\\x{code - _BYTE:02x}"
    return character.encode("unicode_escape").decode("ascii")
