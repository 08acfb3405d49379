"""Becoming a daemon: fork before any thread or event loop, and tell the parent how it went.

The parent waits on a pipe for one line of JSON: the mount is usable, or the error and the exit code. When the
pipe closes without one, the daemon has died on the way.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from typing import Final, Protocol

from deferfs.errors import DeferfsError, EnvironmentProblem, MountFailedError

_log: Final = logging.getLogger(__name__)


class DaemonBugError(DeferfsError):
    """The daemon has met a bug of its own before the mount was usable."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h


class Handshake(Protocol):
    """How the mount reports that it is usable. Called at most once."""

    def ready(self) -> None:
        """The mount is usable: the command that started it may return."""


class NoHandshake:
    """In the foreground nobody waits."""

    def ready(self) -> None:
        """Nobody to tell."""


class PipeHandshake:
    """The daemon's end of the pipe to the waiting parent."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def over(self) -> bool:
        """Whether the parent has been told and has gone."""
        return self._fd < 0

    def ready(self) -> None:
        """Let the parent return, and let go of the terminal."""
        detach_standard_streams()
        self._send({"ok": True})

    def failed(self, error: str, exit_code: int) -> None:
        """Let the parent print `error` and exit; without effect after `ready`."""
        self._send({"ok": False, "error": error, "exit_code": exit_code})

    def _send(self, message: dict[str, object]) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.write(fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            pass  # the parent was interrupted; the mount stays
        finally:
            os.close(fd)


def run_in_background(serve: Callable[[PipeHandshake], None]) -> None:
    """Run `serve` in a daemon process; returns in the caller's process when `serve` has reported.

    Raises EnvironmentProblem, DaemonBugError or MountFailedError when it did not come about. The process must have
    no other threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(reader)
        _become_daemon(serve, writer)  # never returns
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.readline()
    _raise_failure(answer)


def _raise_failure(answer: bytes) -> None:
    if not answer.endswith(b"\n"):
        raise MountFailedError("the daemon ended before the mount was usable; see its log")
    message = json.loads(answer)
    if message["ok"]:
        return
    for kind in (EnvironmentProblem, DaemonBugError):
        if message["exit_code"] == kind.exit_code:
            raise kind(message["error"])
    raise MountFailedError(message["error"])


def _become_daemon(serve: Callable[[PipeHandshake], None], writer: int) -> None:
    """The second half of the fork: own session, no controlling terminal, no working directory to keep busy."""
    code = DaemonBugError.exit_code
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.chdir("/")
        code = _serve_and_report(serve, PipeHandshake(writer))
    finally:
        # Never unwind into the caller's stack: its cleanup belongs to the parent.
        os._exit(code)


def _serve_and_report(serve: Callable[[PipeHandshake], None], handshake: PipeHandshake) -> int:
    try:
        serve(handshake)
    except DeferfsError as error:
        if handshake.over:
            _log.error("%s", error)  # nobody else will tell
        handshake.failed(str(error), error.exit_code)
        return error.exit_code
    except BaseException as error:
        if handshake.over:
            _log.exception("internal error")
        handshake.failed(f"internal error: {type(error).__name__}: {error}", DaemonBugError.exit_code)
        return DaemonBugError.exit_code
    return 0


def detach_standard_streams() -> None:
    """Standard input, output and error become /dev/null."""
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def raise_file_limit() -> None:
    """As many open files as the hard limit allows: sockets, devices and cgroup files must not run out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
