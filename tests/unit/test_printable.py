import json
import os
import sys
import unicodedata

import pytest

from deferfs.printable import encodable, printable

HARMFUL = {
    b"line\nend": "line\\nend",
    b"escape\x1b[2J": "escape\\x1b[2J",
    b"bell\x07\rreturn\ttab\x7f": "bell\\x07\\rreturn\\ttab\\x7f",
    "C1\x9b31m".encode(): "C1\\x9b31m",
    b"raw \x9b31m \xff": "raw \\x9b31m \\xff",
    "right to left \u202egnp.exe": "right to left \\u202egnp.exe",
    "a line \u2028 separator": "a line \\u2028 separator",
    "zero \u200b width": "zero \\u200b width",
    "a tag \U000e0041": "a tag \\U000e0041",
    "\ud800": "\\ud800",
}
READABLE = ("plain", "with space", "Grüße", "名前", "имя", "سلام", "emoji 🦀", "back\\slash", "", "'quotes\"")


@pytest.mark.parametrize(("raw", "shown"), HARMFUL.items(), ids=HARMFUL.values())
def test_control_characters_are_shown_escaped(raw: str | bytes, shown: str) -> None:
    assert printable(raw) == shown
    assert printable(os.fsdecode(raw) if isinstance(raw, bytes) else raw) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("name", READABLE)
def test_readable_names_stay(name: str) -> None:
    assert printable(name) == name
    assert printable(name.encode()) == name


def test_no_character_with_an_effect_is_left() -> None:
    everything = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert {unicodedata.category(character) for character in everything}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    everything.encode()


def test_json_has_no_lone_surrogates() -> None:
    assert encodable(os.fsdecode(b"a\xffb\n\xc3\xa4")) == "a?b\nä"
    assert json.loads(json.dumps(encodable(os.fsdecode(b"\xff")))) == "?"
    assert encodable("plain Grüße \ufffd \ud800") == "plain Grüße \ufffd ?"
