"""What commands print: text for people, JSON for programs, parameter types they share.

Everything that a command prints goes through here, and so through `printable`: names in it were chosen by others.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import click

from deferfs.errors import UsageError
from deferfs.printable import encodable, printable
from deferfs.units import parse_size


class Size(click.ParamType[int]):
    """A size such as `4096`, `64K` or `1G`, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Called by click; `value` is a text, or the default as a number of bytes."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


SIZE = Size()


class Whole(click.IntRange):
    """A whole number between bounds, which messages call so; click says "integer range" for a word that is none."""

    name = "whole number"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """How help texts show it."""
        return "N"


class Number(click.FloatRange):
    """A number between bounds, fractions included."""

    name = "number"


def say(text: str = "") -> None:
    """Print one line of text."""
    click.echo(printable(text).encode())


def tell(text: str) -> None:
    """Print one line that is not the result: progress, an error or a notice."""
    report(f"deferfs: {text}")


def report(text: str) -> None:
    """One line of a report beside the output of a command of the user's."""
    click.echo(printable(text).encode(), err=True)


def report_traceback() -> None:
    """The exception that is being handled, for developers."""
    for line in traceback.format_exc().splitlines():
        report(line)


def overwrite(text: str, *, last: bool) -> None:
    """A line on the terminal that the next one replaces, unless it is the `last`."""
    end = "\n" if last else ""
    sys.stderr.write(f"\r{printable(text)}\x1b[K{end}")
    sys.stderr.flush()


def confirm(question: str) -> bool:
    """Ask the user; the default is no."""
    return click.confirm(printable(question), default=False, err=True)


def counted(number: int, noun: str, plural: str | None = None, *, form: str = "") -> str:
    """`1 inode`, `1203 inodes`; `plural` where it is not the noun with an s, `form` as for format()."""
    return f"{number:{form}} {noun if number == 1 else plural or noun + 's'}"


def say_json(value: object, *, indent: int | None = 2) -> None:
    """`value` as JSON; `indent` None puts it on one line."""
    click.echo(json_text(value, indent=indent))


def json_text(value: object, *, indent: int | None = 2) -> str:
    """`value` as JSON that any program can read, without a line end."""
    return json.dumps(_encodable(value), indent=indent)


def json_path(key: str, path: str) -> dict[str, str]:
    """A path for JSON: as text with `?` for what is not UTF-8, and exactly, as base64."""
    return {key: encodable(path), f"{key}_base64": base64.b64encode(os.fsencode(path)).decode("ascii")}


def _encodable(value: object) -> object:
    """`value` with every text in it fit for JSON: half the readers refuse lone surrogates."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value
