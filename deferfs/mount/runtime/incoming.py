"""Whether the kernel has queued requests that no task has read yet."""

from __future__ import annotations

import select


class IncomingRequests:
    """Polls the descriptor of the requests, while there is one."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def watch(self, fd: int) -> None:
        """`fd` is readable when requests or FORGETs are queued."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """The mount is gone: no more requests will come."""
        self._poll.unregister(fd)

    def pending(self) -> bool:
        """Whether unread requests are queued."""
        return bool(self._poll.poll(0))
