"""What the control socket of a mount takes: one struct for each request, which names the type of its answer.

On the wire a request is `{"command": COMMAND, FIELD: VALUE, ...}`. A daemon refuses a request or a field that it does
not know, in one line that names its version: a client that is newer learns that what it asked for was not done.
Requests belong to the `SCHEMA` of the statistics: within one schema requests, and fields with a default, are added; one
that is there keeps its meaning.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Generic, TypeVar, get_args

import msgspec

from deferfs import __version__
from deferfs.contract.answers import ImageIdentity, Outcome, decode_identity, decode_outcome, read_as
from deferfs.contract.fields import Text, says
from deferfs.contract.inode_report import InodeReport, decode_inode
from deferfs.contract.statistics import SCHEMA, Statistics, decode
from deferfs.errors import ControlError

Answer = TypeVar("Answer")
INODE_DIGITS_MAX: Final = 20
"""Of an inode number in decimal: 64 bits."""


class Query(
    msgspec.Struct, Generic[Answer], frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="command"
):
    """A request. `result` of its answer, when it is not refused, is an `Answer`."""

    def read(self, result: object, mountpoint: str) -> Answer:
        """The answer, of the `result` that the daemon behind `mountpoint` has sent. ControlError when it is none."""
        raise NotImplementedError


class GetState(Query[str], frozen=True, kw_only=True, tag="state"):
    """Whether the mount is served: `serving`, or `stopping` once the kernel has let go of it."""

    def read(self, result: object, mountpoint: str) -> str:
        """The word."""
        return read_as(str, result, mountpoint)


class GetIdentity(Query[ImageIdentity], frozen=True, kw_only=True, tag="identity"):
    """Which image is open: `device` ("major:minor") and `inode` of its file, how many `names` that has, `pid` of the
    daemon."""

    def read(self, result: object, mountpoint: str) -> ImageIdentity:
        """The image."""
        return decode_identity(result, mountpoint)


class GetOutcome(Query[Outcome], frozen=True, kw_only=True, tag="outcome"):
    """What became of the image: answered when the daemon has closed it. The keys of `identity`; `clean`: nothing has to
    be replayed; `errors`: damaged metadata was met; `problem`: why the journal was aborted, or empty."""

    def read(self, result: object, mountpoint: str) -> Outcome:
        """The image, and its state."""
        return decode_outcome(result, mountpoint)


class GetStatistics(Query[Statistics], frozen=True, kw_only=True, tag="stat"):
    """The statistics of the moment."""

    def read(self, result: object, mountpoint: str) -> Statistics:
        """Of this program's schema; ControlError also when the daemon speaks another one."""
        return decode(result, mountpoint)


class GetInode(Query[InodeReport], frozen=True, kw_only=True, tag="inode"):
    """Everything about one inode."""

    number: Annotated[
        Text,
        msgspec.Meta(pattern=f"^[0-9]{{1,{INODE_DIGITS_MAX}}}$", description="the inode number, in decimal digits"),
    ]

    def read(self, result: object, mountpoint: str) -> InodeReport:
        """Of this program's schema; ControlError also when the daemon speaks another one."""
        return decode_inode(result, mountpoint)


class Sync(Query[None], frozen=True, kw_only=True, tag="sync"):
    """Make everything durable that the kernel has handed over; answered with null when it is."""

    def read(self, result: object, mountpoint: str) -> None:
        """Nothing: that there is an answer says it all."""


class Set(Query[str], frozen=True, kw_only=True, tag="set"):
    """Change a setting, as `deferfs ctl` does; the answer says what it is now."""

    key: Annotated[Text, says("a setting or an action of [`ctl`](command-line.md#ctl)")]
    value: Annotated[Text, says("its value, as `ctl` takes it")]

    def read(self, result: object, mountpoint: str) -> str:
        """What it is now: text for people."""
        return read_as(str, result, mountpoint)


Request = GetState | GetIdentity | GetOutcome | GetStatistics | GetInode | Sync | Set
"""Each request that there is; told apart by `command`."""
REQUESTS: Final[dict[str, type[Query[Any]]]] = {str(kind.__struct_config__.tag): kind for kind in get_args(Request)}
"""By `command`, in the order of the documentation."""


def encode_request(request: Query[Any]) -> bytes:
    """The line that is sent. Text in it may hold surrogates (bytes that are not UTF-8), which JSON escapes."""
    return json.dumps(msgspec.to_builtins(request)).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """What a client has sent. ControlError, in one line, when this daemon cannot do it."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("the request is not a line of JSON") from None
    if not isinstance(found, dict):
        raise ControlError("the request is not a JSON object")
    command = found.get("command")
    if not isinstance(command, str) or command not in REQUESTS:
        named = f"the request {command!r}" if "command" in found else "a request without a command"
        raise ControlError(f"{_daemon()} does not know {named}; it knows {', '.join(REQUESTS)}")
    try:
        request: Request = msgspec.convert(found, Request)
    except msgspec.ValidationError as error:
        raise ControlError(f"{_daemon()} cannot read the request {command!r}: {error}") from None
    return request


def _daemon() -> str:
    return f"the daemon (deferfs {__version__}, schema {SCHEMA})"
