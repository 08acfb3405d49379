"""Calls on directory streams. A row has one at a time."""

from __future__ import annotations

import os

from tests.mounted.posix.libc import Stream
from tests.mounted.posix.machine import Case, call

_DOTS = (b".", b"..")


@call
def opendir(case: Case, path: bytes) -> None:
    case.stream = Stream(path)
    case.cleanups.append(case.stream.close)


def _stream(case: Case) -> Stream:
    if case.stream is None:
        raise ValueError("no directory stream is open")
    return case.stream


@call
def next_(case: Case, count: int) -> int:
    """Read so many names (`.` and `..` do not count) and remember them; how many there were."""
    got = 0
    while got < count and (name := _stream(case).read()) is not None:
        if name not in _DOTS:
            case.seen.append(name)
            got += 1
    return got


@call
def rest(case: Case) -> int:
    """Read to the end; how many names were read."""
    return next_(case, 1 << 30)


@call
def first(case: Case) -> list[bytes]:
    """All names of the stream with `.` and `..`, sorted."""
    found = []
    while (name := _stream(case).read()) is not None:
        found.append(name)
    return sorted(found)


@call
def tell(case: Case) -> int:
    return _stream(case).tell()


@call
def seek(case: Case, place: int) -> None:
    _stream(case).seek(place)


@call
def rewind(case: Case) -> None:
    _stream(case).rewind()
    case.seen.clear()


@call
def seen(case: Case, prefix: bytes) -> int:
    """How many different names that begin like this were read so far."""
    return len({name for name in case.seen if name.startswith(prefix)})


@call
def twice(case: Case) -> int:
    """How many names were read more than once."""
    return len(case.seen) - len(set(case.seen))


@call
def peekname(case: Case) -> None:
    """Read one name and keep it; `again` must give the same."""
    case.kept = _stream(case).read()


@call
def again(case: Case) -> bool:
    return _stream(case).read() == case.kept


@call
def remove_seen(case: Case, path: bytes) -> None:
    """Delete every file that was read so far."""
    for name in case.seen:
        os.unlink(path + b"/" + name)
    case.seen.clear()


@call
def remove_all(case: Case, path: bytes, batch: int) -> int:
    """What rm(1) does: read some names, delete them, read on; how many are left."""
    stream = Stream(path)
    try:
        while True:
            found: list[bytes] = []
            while len(found) < batch and (name := stream.read()) is not None:
                if name not in _DOTS:
                    found.append(name)
            for name in found:
                os.unlink(path + b"/" + name)
            if len(found) < batch:
                return len(os.listdir(path))
    finally:
        stream.close()
