"""Runs rows: one fresh directory each, in one process that every row leaves as it found it.

The process must have one thread: a step `as USER` changes the process's own effective ids.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tests.mounted.posix.language import USERS, Row, Step, number_of, text_of
from tests.mounted.posix.libc import Stream

ROW_SECONDS_MAX: Final = 30
"""A row takes milliseconds; one that hangs must be named."""
SLOW_ROW_SECONDS_MAX: Final = 600
"""Of a row of the table `slow`."""
SHOWN_MAX: Final = 200
_ALIASES: Final = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EAGAIN: "EAGAIN"}
"""Numbers with two names."""
_UMASK: Final = 0o022

Verb = Callable[..., object]
V = TypeVar("V", bound=Verb)
VERBS: Final[dict[str, Verb]] = {}
"""Every call that a row can name. Filled by the modules `calls_*`."""


class Hung(Exception):
    """A row did not end."""


class Descriptor(int):
    """A file descriptor that a step returned: closed when the row ends."""


@dataclass
class Case:
    """What one row has in hand while it runs."""

    variables: dict[str, int] = field(default_factory=dict)
    descriptors: list[int] = field(default_factory=list)
    holders: list[int] = field(default_factory=list)
    marks: dict[bytes, os.stat_result] = field(default_factory=dict)
    cleanups: list[Callable[[], None]] = field(default_factory=list)
    handles: list[bytes] = field(default_factory=list)
    stream: Stream | None = None
    seen: list[bytes] = field(default_factory=list)
    kept: bytes | None = None


def call(function: V) -> V:
    """Make a function a call of the tables, under its own name (without a trailing underscore).

    Parameters annotated `bytes` are text, `int` are numbers, `str` are words as they stand; the first is the Case.
    """
    VERBS[function.__name__.rstrip("_")] = function
    return function


def run_rows(rows: Iterable[Row], root: str) -> Iterator[tuple[Row, str]]:
    """Run each row in a directory of its own below `root`; (row, what is wrong with it) for those that fail."""
    os.umask(_UMASK)
    signal.signal(signal.SIGALRM, _alarm)
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for row in rows:
            place = row.where.replace(":", "-")
            os.mkdir(place, 0o777, dir_fd=base)
            os.chmod(place, 0o777, dir_fd=base)
            os.chdir(f"/proc/self/fd/{base}/{place}")
            wrong = _run_row(row)
            os.chdir("/")
            if wrong:
                yield row, wrong
    finally:
        os.close(base)


def outcomes(row: Row) -> list[str]:
    """What each step of a row gives, in the working directory; whatever is expected."""
    case = Case()
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(ROW_SECONDS_MAX)
    found = []
    try:
        for step in row.steps:
            found.append(_outcome(case, step))
    except Hung:
        found.append("does not end")
    finally:
        signal.alarm(0)
        _clean(case)
    return found


def _alarm(_number: int, _frame: object) -> None:
    raise Hung


def _run_row(row: Row) -> str:
    case = Case()
    signal.alarm(SLOW_ROW_SECONDS_MAX if row.where.startswith("slow:") else ROW_SECONDS_MAX)
    try:
        for step in row.steps:
            found = _outcome(case, step)
            if not any(_matches(found, wanted) for wanted in step.expected):
                return f"{step.text}: got {found[:SHOWN_MAX]}"
        return ""
    except Hung:
        return "does not end"
    except Exception:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
        _clean(case)


def _clean(case: Case) -> None:
    os.umask(_UMASK)
    for cleanup in reversed(case.cleanups):
        cleanup()
    for descriptor in case.descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass
    for pid in case.holders:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _matches(found: str, wanted: str) -> bool:
    if wanted == "ok":
        return not found.startswith("E") or found not in errno.errorcode.values()
    if wanted.startswith((">=", "<=")):
        number = int(found) if found.lstrip("-").isdecimal() else None
        bound = number_of(wanted[2:], {})
        return number is not None and (number >= bound if wanted[0] == ">" else number <= bound)
    return found == _shown(text_of(wanted))


def _outcome(case: Case, step: Step) -> str:
    """What a step gives: the name of an errno, or the value as text."""
    perform = {None: _here, "child": _in_child, "keep": _in_keeper}[step.process]
    value = perform(case, step)
    if isinstance(value, Descriptor):
        case.descriptors.append(int(value))
    if step.variable is not None and isinstance(value, int):
        case.variables[step.variable] = int(value)
    if isinstance(value, Descriptor):
        return "ok"
    return _shown(value)


def _shown(value: object) -> str:
    if value is None:
        return "ok"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, bytes):
        text = value.decode("latin-1").encode("unicode_escape").decode()
        return text.replace(" ", "\\s").replace(";", "\\q") or "\\e"
    if isinstance(value, list | tuple):
        return ",".join(map(_shown, value)) or "\\e"
    return str(value)


def _here(case: Case, step: Step) -> object:
    verb = VERBS[step.words[0]]
    arguments = _arguments(verb, case, step.words[1:])
    with _effective(step.user):
        try:
            return verb(case, *arguments)
        except OSError as error:
            return _ALIASES.get(error.errno or 0) or errno.errorcode.get(error.errno or 0, str(error))


def _arguments(verb: Verb, case: Case, words: tuple[str, ...]) -> list[object]:
    kinds = [kind for name, kind in verb.__annotations__.items() if name not in ("return", "case")]
    if len(words) > len(kinds):
        raise ValueError(f"too many arguments: {words}")
    return [_argument(str(kind), case, word) for kind, word in zip(kinds, words, strict=False)]


def _argument(kind: str, case: Case, word: str) -> object:
    if kind == "bytes":
        return text_of(word)
    if kind == "int":
        return number_of(word, case.variables)
    return word


@contextmanager
def _effective(user: str | None) -> Iterator[None]:
    """Be another user for a moment: without root's effective capabilities, as after seteuid(2)."""
    if user is None:
        yield
        return
    uid, gid, groups = USERS[user]
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def _fork(case: Case, step: Step, *, keep: bool) -> tuple[int, str]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            signal.alarm(0)
            found = _shown(_here(case, step))
            os.write(writing, json.dumps(found).encode())
            os.close(writing)
            if keep:
                signal.pause()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    if not text:
        os.waitpid(pid, 0)
        raise AssertionError(f"the child died: {step.text}")
    return pid, str(json.loads(text))


def _in_child(case: Case, step: Step) -> object:
    pid, found = _fork(case, step, keep=False)
    os.waitpid(pid, 0)
    return int(found) if found.isdecimal() else _Raw(found)


def _in_keeper(case: Case, step: Step) -> object:
    pid, found = _fork(case, step, keep=True)
    case.holders.append(pid)
    return _Raw(found)


class _Raw:
    """Text that is to be shown as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text
