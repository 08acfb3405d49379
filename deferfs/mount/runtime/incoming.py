"""Whether the kernel has sent requests that no task has read yet."""

from __future__ import annotations

import select


class IncomingRequests:
    """Looks at the descriptor that requests come from, once there is one."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def watch(self, fd: int) -> None:
        """`fd` is readable while requests or FORGETs wait."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """The mount is gone: there will be no more requests."""
        self._poll.unregister(fd)

    def pending(self) -> bool:
        """Whether any have not been read."""
        return bool(self._poll.poll(0))
