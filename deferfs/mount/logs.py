"""Where the daemon's log goes: standard error in the foreground, syslog or a file in the background."""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
from typing import Final

from deferfs.errors import EnvironmentProblem

_REPLY_TO_NOBODY: Final = "fuse_reply_* failed with No such file or directory"
"""How pyfuse3 reports ENOENT from the FUSE device: there is no such request any more."""
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
        faulthandler.enable(handler.stream)  # where it was, should it die in compiled code
    handler.setFormatter(logging.Formatter(text))
    handler.addFilter(_wanted)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _wanted(record: logging.LogRecord) -> bool:
    """Not that a reply came too late: the kernel takes its requests back when the mount goes away, and nobody misses
    the answer."""
    return not record.getMessage().endswith(_REPLY_TO_NOBODY)


def _handler(*, foreground: bool, file: str | None) -> logging.Handler:
    if file is not None:
        try:
            return logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise EnvironmentProblem(f"{file}: cannot write the log: {error.strerror}") from error
    if foreground:
        return logging.StreamHandler()
    if os.path.exists(SYSLOG_SOCKET):
        try:
            return logging.handlers.SysLogHandler(SYSLOG_SOCKET, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        except OSError:
            pass  # the socket is a leftover
    return logging.NullHandler()
