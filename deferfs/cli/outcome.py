"""How a command ends: every error becomes one line on standard error and a conventional exit code."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click

from deferfs.cli.output import report_traceback, tell
from deferfs.errors import DeferfsError, EnvironmentProblem, UsageError

DEBUG_VARIABLE: Final = "DEFERFS_DEBUG"
"""The environment variable that adds tracebacks to bugs."""
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
"""As a shell reports a command that SIGINT has killed."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """The exit codes of one command. `failure` None: each error has its own."""

    usage: int = 2
    system: int = 2
    failure: int | None = None
    internal: int = 70
    interrupted: int = EXIT_INTERRUPTED


ORDINARY: Final = Conventions()
"""All commands without conventions of their own."""
MOUNT: Final = Conventions(usage=1, system=2, failure=32, internal=4, interrupted=8)
"""mount(8)."""
FSCK: Final = Conventions(usage=16, system=8, failure=8, internal=8, interrupted=32)
"""fsck(8)."""


def finish(command: Callable[[], object], conventions: Conventions) -> int:
    """Run `command` and return its exit code; every error is one line on standard error."""
    try:
        result = command()
        return result if isinstance(result, int) else 0
    except (click.ClickException, UsageError) as error:
        tell(_click_text(error) if isinstance(error, click.ClickException) else str(error))
        return conventions.usage
    except DeferfsError as error:
        tell(str(error))
        return _code(error, conventions)
    except (click.Abort, KeyboardInterrupt):
        tell("interrupted")
        return conventions.interrupted
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _output_is_gone():
            _discard_output()
            return 1
        _debug()
        tell(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return conventions.failure or 1
    except Exception as error:
        _debug()
        text = " ".join(str(error).split())
        tell(f"internal error: {type(error).__name__}: {text} (set {DEBUG_VARIABLE}=1 for details)")
        return conventions.internal


def _code(error: DeferfsError, conventions: Conventions) -> int:
    if isinstance(error, EnvironmentProblem):
        return conventions.system
    if error.exit_code == ORDINARY.internal:
        return conventions.internal
    return error.exit_code if conventions.failure is None else conventions.failure


def _click_text(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return text
    return f"{text[:1].lower()}{text[1:].rstrip('.')}; see {error.ctx.command_path} --help"


def _debug() -> None:
    if os.environ.get(DEBUG_VARIABLE):
        report_traceback()


def _output_is_gone() -> bool:
    """Whether the reader of standard output or standard error has gone. A broken pipe may be another one: to a process
    of ours, or to a daemon."""
    poller = select.poll()
    for stream in (1, 2):
        poller.register(stream, 0)
    return bool(poller.poll(0))


def _discard_output() -> None:
    """The reader of standard output has gone; keep the interpreter from complaining about it at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
