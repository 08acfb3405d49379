"""What the control socket answers: one line, whatever was asked.

Keys may be added; a reader passes over those that it does not know.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec

from deferfs.contract.fields import Flag, Text, says
from deferfs.errors import ControlError


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """It was done."""

    ok: Annotated[Flag, says("true")] = True
    result: Annotated[Any, says("what the request asks for; null where that is nothing")]


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """It was not done."""

    ok: Annotated[Flag, says("false")] = False
    error: Annotated[Text, says("why, in one line")]


Reply = Done | Refused


def encode_reply(reply: Reply) -> bytes:
    """The line that is sent. Text in it may hold surrogates (bytes that are not UTF-8), which JSON escapes."""
    return json.dumps(msgspec.to_builtins(reply, str_keys=True)).encode() + b"\n"


def decode_reply(line: bytes, mountpoint: str) -> Reply:
    """What the daemon behind `mountpoint` has sent. ControlError, in one line, when it is no reply."""
    try:
        found = json.loads(line)
        done = isinstance(found, dict) and found.get("ok") is True
        return msgspec.convert(found, Done) if done else msgspec.convert(found, Refused)
    except (ValueError, RecursionError) as error:  # a ValidationError is a ValueError
        raise ControlError(f"{mountpoint}: the daemon's answer cannot be read: {error}") from None
