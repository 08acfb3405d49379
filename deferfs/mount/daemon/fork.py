"""Becoming a daemon: fork before any thread or event loop, and report the result to the parent.

The parent waits on a socket for one line of JSON: the mount is usable, or the error and the exit code. When the socket
is closed without one, the daemon has died. The parent acknowledges the message; without that the parent has been
interrupted, and the daemon unmounts again.

Until then the daemon stays in the parent's process group: autofs admits that of the automounter to what is being
mounted, and blocks all other processes. Only then the daemon gets a session of its own, and no longer accesses the
mountpoint. (An interrupt from the terminal reaches both processes.)
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import socket
import sys
from collections.abc import Callable
from typing import Final, Protocol

from deferfs.errors import DeferfsError, EnvironmentProblem, MountFailedError

_log: Final = logging.getLogger(__name__)

_INTERRUPTED: Final = 130
"""Exit code after SIGINT, as in a shell: 128 + 2."""


class DaemonBugError(DeferfsError):
    """A bug of the daemon before the mount was usable."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h


class Handshake(Protocol):
    """How the mount reports to the command that started it. `ready` is called at most once."""

    def ready(self) -> bool:
        """Report that the mount is usable: the command may return. False when the command has ended before. Blocks."""

    def is_wanted(self) -> bool:
        """Whether the command that starts the mount still waits for it."""


class NoHandshake:
    """For the foreground, where no other process waits."""

    def ready(self) -> bool:
        """There is no process to report to."""
        return True

    def is_wanted(self) -> bool:
        """Always: the waiting command is this process."""
        return True


class SocketHandshake:
    """The daemon's end of the connection to the waiting parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @property
    def over(self) -> bool:
        """Whether the parent has been told and has ended."""
        return self._connection.fileno() < 0

    def is_wanted(self) -> bool:
        """The parent sends nothing before the report: a readable socket means that it has ended."""
        if self.over:
            return True
        poller = select.poll()
        poller.register(self._connection.fileno(), select.POLLIN)
        return not poller.poll(0)

    def ready(self) -> bool:
        """Detach from the terminal, and let the parent return."""
        os.setsid()
        detach_standard_streams()
        try:
            self._send({"ok": True})
            return self._connection.recv(1) == _UNDERSTOOD
        except ConnectionError:
            return False
        finally:
            self._connection.close()

    def failed(self, error: str, exit_code: int) -> None:
        """Let the parent print `error` and exit; no effect after `ready`."""
        if self.over:
            return
        try:
            self._send({"ok": False, "error": error, "exit_code": exit_code})
        except ConnectionError:
            pass  # the parent has been interrupted
        finally:
            self._connection.close()

    def _send(self, message: dict[str, object]) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")


_UNDERSTOOD: Final = b"+"


def run_in_background(serve: Callable[[SocketHandshake], None]) -> None:
    """Run `serve` in a daemon process; returns in the caller's process when `serve` has reported.

    EnvironmentProblem, DaemonBugError or MountFailedError when the mount failed. After any exception the daemon has
    ended. The process must have no other threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _become_daemon(serve, theirs)  # never returns
    theirs.close()
    with ours:
        os.waitpid(child, 0)
        try:
            with ours.makefile("rb") as file:
                answer = file.readline()
            _raise_failure(answer)
            ours.sendall(_UNDERSTOOD)
        except ConnectionError as error:
            raise MountFailedError(_ENDED_EARLY) from error
        except BaseException:
            ours.shutdown(socket.SHUT_WR)
            while ours.recv(1 << 16):  # it unmounts what it has mounted
                pass
            raise


_ENDED_EARLY: Final = "the daemon ended before the mount was usable; see its log"


def _raise_failure(answer: bytes) -> None:
    if not answer.endswith(b"\n"):
        raise MountFailedError(_ENDED_EARLY)
    message = json.loads(answer)
    if message["ok"]:
        return
    for kind in (EnvironmentProblem, DaemonBugError):
        if message["exit_code"] == kind.exit_code:
            raise kind(message["error"])
    raise MountFailedError(message["error"])


def _become_daemon(serve: Callable[[SocketHandshake], None], connection: socket.socket) -> None:
    """The child's half of the fork: a new session, and the root as working directory, so that none is kept busy."""
    code = DaemonBugError.exit_code
    try:
        if os.fork() != 0:
            os._exit(0)
        os.chdir("/")
        code = _serve_and_report(serve, SocketHandshake(connection))
    finally:
        # Never unwind into the caller's stack: its cleanup belongs to the parent.
        os._exit(code)


def _serve_and_report(serve: Callable[[SocketHandshake], None], handshake: SocketHandshake) -> int:
    try:
        serve(handshake)
    except DeferfsError as error:
        if handshake.over:
            _log.error("%s", error)  # no other process will report it
        handshake.failed(str(error), error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
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
    """Raise the soft limit of open files to the hard limit: sockets, devices and cgroup files must not run out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
