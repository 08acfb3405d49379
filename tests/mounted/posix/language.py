"""The language of the tables: one row a line, one row one case.

    touch f; mkdir d; rename f d -> EISDIR; kind f -> file

A row is a list of steps. Each is a call (`calls_*.py`) and, after `->`, what it must give: an errno, `ok`, a value,
several of these separated by ` / `, or a bound (`>=5`). A step without `->` must succeed. Before the call may stand:

    as USER           with the effective ids of a user of `USERS`, and none of root's capabilities
    child             in a child process, which ends with the call
    keep              in a child process, which lives until the row ends (it holds locks, leases, open files)
    NAME=             keep the value under a name: `a=open f O_RDWR; write a text`

`@deferfs`, `@ext4,xfs`, `@-xfs` in front of a row say for which filesystems it is written. A word may contain `\\xNN`,
`\\s` (space), `\\q` (semicolon), `\\e` (nothing) and `{text*count}`. Numbers: `0644`, `16T-1`, `O_RDWR|O_CREAT`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

USERS: Final[dict[str, tuple[int, int, tuple[int, ...]]]] = {
    "alice": (1001, 1001, (1001,)),
    "bob": (1002, 1002, (1002,)),
    "carol": (1003, 1003, (1003, 1001, 2000)),
    "dave": (1004, 2000, (2000,)),
}
"""Effective user and group, supplementary groups. Carol belongs to Alice's group, and with Dave to 2000."""

_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_OWN_NUMBERS: Final = {
    "RENAME_NOREPLACE": 1,
    "RENAME_EXCHANGE": 2,
    "RENAME_WHITEOUT": 4,
    "AT_FDCWD": -100,
    "AT_SYMLINK_NOFOLLOW": 0x100,
    "AT_REMOVEDIR": 0x200,
    "AT_EACCESS": 0x200,
    "AT_SYMLINK_FOLLOW": 0x400,
    "AT_EMPTY_PATH": 0x1000,
    "FALLOC_FL_KEEP_SIZE": 1,
    "FALLOC_FL_PUNCH_HOLE": 2,
    "FALLOC_FL_COLLAPSE_RANGE": 8,
    "FALLOC_FL_ZERO_RANGE": 16,
    "FALLOC_FL_INSERT_RANGE": 32,
    "FS_IOC_GETFLAGS": 0x80086601,
    "FS_IOC_FIEMAP": 0xC020660B,
    "FICLONE": 0x40049409,
    "FIONREAD": 0x541B,
    "NOW": -1,
    "OMIT": -2,
}
_WORD: Final = re.compile(r"\{(.*?)\*(\d+)\}|\\x([0-9a-f]{2})|\\([sqen])")
_PLAIN: Final = {"s": " ", "q": ";", "e": "", "n": "\n"}


@dataclass(frozen=True)
class Step:
    """One call of a row. `words` are the name of the call and its arguments, not expanded yet."""

    words: tuple[str, ...]
    expected: tuple[str, ...]
    user: str | None
    process: str | None
    variable: str | None
    text: str


@dataclass(frozen=True)
class Row:
    """One case. `where` is the table and line that it stands in, `wanted` for which filesystems it is written."""

    where: str
    text: str
    steps: tuple[Step, ...]
    wanted: frozenset[str]
    unwanted: frozenset[str]

    def is_for(self, names: frozenset[str]) -> bool:
        """Whether the row says anything about a filesystem with these names: `ext4`, or `deferfs` and `writeback`.
        Where only root may enter (`rootonly`), rows with other users say nothing.
        """
        if "rootonly" in names and any(step.user for step in self.steps):
            return False
        return not names & self.unwanted and (not self.wanted or bool(names & self.wanted))


def read_table(path: Path) -> Iterator[Row]:
    """The rows of a table. ValueError names the line that makes no sense."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield read_row(f"{path.stem}:{number}", line.strip())


def read_row(where: str, line: str) -> Row:
    """One row. ValueError when it makes no sense."""
    names: list[str] = []
    rest = line
    if line.startswith("@"):
        tag, _, rest = line.partition(" ")
        names = tag[1:].split(",")
    steps = tuple(_step(where, text.strip()) for text in rest.split(";"))
    return Row(
        where,
        line,
        steps,
        frozenset(name for name in names if not name.startswith("-")),
        frozenset(name[1:] for name in names if name.startswith("-")),
    )


def _step(where: str, text: str) -> Step:
    call, arrow, expected = text.partition(" -> ")
    words = call.split()
    user = process = variable = None
    if words and re.fullmatch(r"[a-z]\w*=\w+", words[0]):
        variable, words[0] = words[0].split("=")
    if len(words) > 2 and words[0] == "as":
        user, words = words[1], words[2:]
        if user not in USERS:
            raise ValueError(f"{where}: no user {user}")
    if len(words) > 1 and words[0] in ("child", "keep"):
        process, words = words[0], words[1:]
    if not words:
        raise ValueError(f"{where}: an empty step in {text!r}")
    wanted = tuple(part.strip() for part in expected.split(" / ")) if arrow else ("ok",)
    return Step(tuple(words), wanted, user, process, variable, text)


def text_of(word: str) -> bytes:
    """The bytes that a word of a table stands for."""

    def expand(match: re.Match[str]) -> str:
        if match[1] is not None:
            return _WORD.sub(expand, match[1]) * int(match[2])
        return chr(int(match[3], 16)) if match[3] else _PLAIN[match[4]]

    return _WORD.sub(expand, word).encode("latin-1")


def number_of(word: str, variables: dict[str, int]) -> int:
    """The number that a word stands for: flags joined by `|`, sums, variables of the row. ValueError."""
    total = 0
    for flag in word.split("|"):
        value, sign = 0, 1
        for part in re.split(r"(?<=[\w)])([+-])", flag):
            if part in ("+", "-"):
                sign = 1 if part == "+" else -1
            else:
                value += sign * _term(part, variables)
        total |= value
    return total


def _term(word: str, variables: dict[str, int]) -> int:
    if word in variables:
        return variables[word]
    if word in _OWN_NUMBERS:
        return _OWN_NUMBERS[word]
    if re.fullmatch(r"[A-Z][A-Z0-9_]+", word):
        for module in (os, stat, fcntl, mmap):
            if hasattr(module, word):
                return int(getattr(module, word))
    if re.fullmatch(r"-?0[0-7]+", word):
        return int(word, 8)
    if re.fullmatch(r"-?\d+[KMGT]", word):
        return int(word[:-1]) * _UNITS[word[-1]]
    return int(word, 0)
