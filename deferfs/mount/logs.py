"""Where the daemon's log goes: standard error in the foreground, syslog or a file in the background."""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
from typing import Final

from deferfs.errors import EnvironmentProblem

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
    handler.setFormatter(logging.Formatter(text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("pyfuse3").addFilter(_has_somebody_to_tell)


def _has_somebody_to_tell(record: logging.LogRecord) -> bool:
    """Not for an answer that came too late: the kernel had given up the request (a RELEASE at unmount, a signal)."""
    return not (record.msg.endswith("fuse_reply_* failed with %s") and record.args == (os.strerror(errno.ENOENT),))


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
