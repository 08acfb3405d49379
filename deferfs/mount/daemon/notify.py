"""sd_notify: reports the state of the daemon to systemd, if that is wanted (NOTIFY_SOCKET)."""

from __future__ import annotations

import os
import socket

from deferfs.printable import printable


class Notifier:
    """Sends state to the service manager; does nothing without one.

    A status is one line: a newline in the name of an image must not add READY or another assignment of the protocol.
    Removes the socket's address from the environment: no child process should speak in the daemon's name.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address or os.environ.pop("NOTIFY_SOCKET", None)

    def ready(self, status: str) -> None:
        """The mount is usable."""
        self._send(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={printable(status)}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={printable(status)}")

    def stopping(self) -> None:
        """The daemon is shutting down."""
        self._send("STOPPING=1\nSTATUS=writing everything back")

    def extend_timeout(self, seconds: float) -> None:
        """Extend the stop timeout: the daemon needs another `seconds`."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(text.encode(), name)
        except OSError:
            self._address = None  # the service manager does not listen any more; the mount continues
