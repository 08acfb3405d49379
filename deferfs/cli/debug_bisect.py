"""`deferfs debug bisect`."""

from __future__ import annotations

import click

from deferfs.cli.debug_view import json_option


@click.command("bisect", short_help="The first transaction with a problem.")
@click.argument("image")
@json_option
def command(image: str, as_json: bool) -> int:
    """Find the first transaction of the log after which the full check finds a problem, by halving.

    Ends in 0 when the state after the newest one is sound, in 4 when a first bad one was found, or when all are bad.
    """
    from deferfs.cli.bisect_run import Bisection, bisect
    from deferfs.cli.debug_view import opened
    from deferfs.cli.output import json_path, say, say_json

    with opened(image) as device:
        found: Bisection = bisect(device, None if as_json else say)
    if as_json:
        say_json({**json_path("image", image), **found.as_json()})
    else:
        for line in found.lines():
            say(f"{image}: {line}")
    return found.code
