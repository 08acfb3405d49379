"""What commands print: text for people, JSON for programs, parameter types they share."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import click

from deferfs.errors import UsageError
from deferfs.mount.units import parse_size


class Size(click.ParamType[int]):
    """A size such as `4096`, `64K` or `1G`, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """What click calls; `value` is a text, or the default as bytes."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


SIZE = Size()


def say(text: str = "") -> None:
    """One line for people. Names are bytes on Linux: what is not UTF-8 is printed as it is."""
    click.echo(os.fsencode(text))


def tell(text: str) -> None:
    """One line that is not the result: progress, or something to know."""
    click.echo(os.fsencode(f"deferfs: {text}"), err=True)


def report(text: str) -> None:
    """One line of a report beside the output of somebody else's command."""
    click.echo(text, err=True)


def say_json(value: object, *, indent: int | None = 2) -> None:
    """`value` as JSON; `indent` None puts it on one line."""
    click.echo(json.dumps(value, indent=indent))


def json_path(key: str, path: str) -> dict[str, str]:
    """A path for JSON: as text with `?` for what is not UTF-8, and exactly, as base64."""
    raw = os.fsencode(path)
    return {
        key: raw.decode("utf-8", "replace").replace("\ufffd", "?"),
        f"{key}_base64": base64.b64encode(raw).decode("ascii"),
    }
