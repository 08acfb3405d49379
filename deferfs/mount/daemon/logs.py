"""The daemon's log: standard error in the foreground, syslog or a file in the background."""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
from io import TextIOWrapper
from typing import Any, Final

from deferfs.errors import EnvironmentProblem, UsageError
from deferfs.mount.host.output_file import append_file
from deferfs.printable import printable

_REPLY_TOO_LATE: Final = "fuse_reply_* failed with No such file or directory"
"""pyfuse3's message for ENOENT from the FUSE device: the request no longer exists."""
SYSLOG_SOCKET: Final = "/dev/log"
"""journald listens there as well."""


def configure(*, foreground: bool, file: str | None, instance: str) -> None:
    """Set up logging for a daemon that serves `instance` (the mountpoint).

    Without a syslog daemon and without `file`, a background daemon keeps no log.
    """
    handler = _handler(foreground=foreground, file=file)
    instance = instance.replace("%", "%%")
    if isinstance(handler, logging.handlers.SysLogHandler):
        text = f"deferfs[{os.getpid()}]: {instance}: %(levelname)s: %(message)s"
    elif file is not None:
        text = f"%(asctime)s {instance}: %(levelname)s: %(message)s"
    else:
        text = "deferfs: %(levelname)s: %(message)s"
    if isinstance(handler, logging.StreamHandler):
        faulthandler.enable(handler.stream)  # log the stack of a crash in compiled code
    handler.setFormatter(_OneLine(text))
    handler.addFilter(_wanted)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


class _OneLine(logging.Formatter):
    """One entry per line, whatever names are in it. The lines of a traceback are indented, so that text of an exception
    cannot look like an entry of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name of the base class)
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class _LogFile(logging.FileHandler):
    """Opens only files that a log may be written to. UsageError."""

    def _open(self) -> TextIOWrapper:
        return os.fdopen(append_file(self.baseFilename), "a", encoding="utf-8", errors="backslashreplace")


def _wanted(record: logging.LogRecord) -> bool:
    """Filters out late replies: the kernel drops its requests at an unmount, and no process waits for the answers."""
    return not record.getMessage().endswith(_REPLY_TOO_LATE)


def _handler(*, foreground: bool, file: str | None) -> logging.Handler:
    if file is not None:
        try:
            return _LogFile(file)
        except UsageError as error:
            raise EnvironmentProblem(f"log={error}") from error
    if foreground:
        return logging.StreamHandler()
    if os.path.exists(SYSLOG_SOCKET):
        try:
            return logging.handlers.SysLogHandler(SYSLOG_SOCKET, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        except OSError:
            pass  # the socket is a leftover
    return logging.NullHandler()
