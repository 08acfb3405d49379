"""What the scenarios share as programs: where results go, how they speak, how they end."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from deferfs.errors import DeferfsError

RESULTS: Final = Path(__file__).parent / "results"


def say(text: str) -> None:
    """One line of progress."""
    click.echo(f"bench: {text}", err=True)


def run_scenario(command: click.Command) -> NoReturn:
    """Run the command line of a scenario: errors are one line, an interrupt cleans up."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    RESULTS.mkdir(exist_ok=True)
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except DeferfsError as error:
        say(str(error))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        sys.exit(128 + signal.SIGINT)
    sys.exit(0)
