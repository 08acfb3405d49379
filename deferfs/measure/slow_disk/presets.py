"""Named disks, and disks given as text: `read=2,write=2,flush=5`.

Each number of a named disk comes from a public source, which its text names; `docs/benchmarking.md` shows them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from deferfs.errors import UsageError

DEPTH_MAX: Final = 64
"""Maximum queue depth of any disk: the server has as many threads."""
_SERVERS_MAX: Final = DEPTH_MAX
_MILLISECONDS_MAX: Final = 60_000.0
_JITTER_MAX: Final = 2.0


class Preset(msgspec.Struct, frozen=True):
    """A disk. Times in ms; a rate of 0 means no limit. `source`: origin of the numbers.

    `servers`: requests served at a time. `depth`: requests in the disk; further ones wait in the kernel. `read`,
    `write`, `flush`: median latency on an idle disk. `seek`: added to a request that does not begin where the previous
    one ended. `jitter`: sigma of the lognormal distribution of these times, cut off at its first and 99.9th percentile.
    `megabytes_per_second`, `requests_per_second`: of the whole disk.

    With a write cache (`cache` is not 0), a write takes `write` to enter it, without a seek. The medium then owes the
    transfer of its data, plus `destage` if it does not follow the previous write; it catches up while idle, and a flush
    waits for it. `cache` is the maximum owed before writes wait.
    """

    name: str
    words: str
    source: str = ""
    servers: int = 1
    depth: int = 32
    read: float = 0.0
    write: float = 0.0
    flush: float = 0.0
    seek: float = 0.0
    jitter: float = 0.0
    megabytes_per_second: float = 0.0
    requests_per_second: float = 0.0
    destage: float = 0.0
    cache: float = 0.0
    rotational: bool = False


PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(
            "none",
            "a disk that answers at once",
            "no delay at all; what remains is the way through loop device and FUSE",
            servers=DEPTH_MAX,
            depth=DEPTH_MAX,
        ),
        Preset(
            "ssd",
            "a local SSD whose write cache is volatile",
            "read 85 us, write 20 us, 279,500 reads/s (so 24 at a time), 3.2 GB/s: random 4 KiB on an Intel P4500 "
            "of 1 TB, in Lenovo's product guide of it; flush 0.9 ms: fsync of 16 KiB on a Samsung 990 Pro, which "
            "has no power-loss protection, in smalldatum.blogspot.com of 7 Jan 2026 (3.5 ms on a 960 Pro, "
            "Percona, 18 Jul 2018); jitter: p99.99 is 2.5 times the average on an Intel P4510, in AnandTech's "
            "enterprise SSD roundup (13704)",
            servers=24,
            depth=64,
            read=0.085,
            write=0.02,
            flush=0.9,
            jitter=0.25,
            megabytes_per_second=3200.0,
        ),
        Preset(
            "network",
            "a block device of a cloud",
            "3,000 requests/s and 125 MiB/s: baseline of an Amazon EBS gp3 volume, in its user guide; 1 ms: "
            "assumed, between the 0.5 ms that the guide gives for io2 Block Express and the single-digit "
            "milliseconds of gp3; what is answered is durable, so a flush is a round trip without data: assumed "
            "half of that; jitter: assumed",
            servers=64,
            depth=64,
            read=1.0,
            write=1.0,
            flush=0.5,
            jitter=0.4,
            megabytes_per_second=131.072,
            requests_per_second=3000.0,
        ),
        Preset(
            "hdd",
            "a disk of 7,200 rpm with a write cache",
            "seek 8.2 ms and half a turn, 4.17 ms: HGST Ultrastar 7K4000 specification, 4.4.1; 175 MB/s: Seagate "
            "Constellation ES.3 manual, 4.1.2; command and cache 0.2 ms: assumed; flush: a whole turn, 8.33 ms, "
            "and what is owed; destage: half of seek and half turn, as a disk sorts what its cache holds: "
            "assumed; cache of 1 s: assumed; jitter: p99 is twice the median, as a long seek and a whole turn are",
            servers=1,
            depth=32,
            read=0.2,
            write=0.2,
            flush=8.33,
            seek=12.37,
            jitter=0.3,
            megabytes_per_second=175.0,
            destage=6.2,
            cache=1000.0,
            rotational=True,
        ),
    )
}


def preset_of(text: str) -> Preset:
    """A preset by its name, or a disk made of `key=value` words. Raises `UsageError`."""
    if text in PRESETS:
        return PRESETS[text]
    if "=" not in text:
        raise UsageError(f"no disk is called {text!r}: {_choices()}")
    # omitted times are 0, and as many requests are served at a time as the disk holds
    values: dict[str, Any] = {}
    for word in text.split(","):
        key, equals, value = word.strip().partition("=")
        if not equals or key not in _KEYS:
            raise UsageError(
                f"{word.strip()!r} in the disk {text!r}: the words are {', '.join(_KEYS)}, each with =NUMBER"
            )
        if key in values:
            raise UsageError(f"the disk {text!r} gives {key} twice")
        values[key] = _KEYS[key](key, value)
    values.setdefault("depth", 32)
    values.setdefault("servers", values["depth"])
    return Preset(text, f"a disk with {text}", "given by the user", **values)


def _choices() -> str:
    return f"there are {', '.join(PRESETS)}, or times in ms, as in read=2,write=2,flush=5"


def _number(low: float, high: float, unit: str) -> Callable[[str, str], float]:
    def parsed(key: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise UsageError(f"{key}={value}: not a number of {unit} from {low:g} to {high:g}")
        return number

    return parsed


def _count(high: int) -> Callable[[str, str], int]:
    def parsed(key: str, value: str) -> int:
        number = int(value) if value.isascii() and value.isdigit() else 0
        if not 1 <= number <= high:
            raise UsageError(f"{key}={value}: not a number from 1 to {high}")
        return number

    return parsed


_TIME: Final = _number(0, _MILLISECONDS_MAX, "ms")
_KEYS: Final[dict[str, Callable[[str, str], Any]]] = {
    "read": _TIME,
    "write": _TIME,
    "flush": _TIME,
    "seek": _TIME,
    "destage": _TIME,
    "cache": _TIME,
    "jitter": _number(0, _JITTER_MAX, "sigma"),
    "megabytes_per_second": _number(0, 1e6, "MB/s"),
    "requests_per_second": _number(0, 1e9, "requests/s"),
    "servers": _count(_SERVERS_MAX),
    "depth": _count(DEPTH_MAX),
}
