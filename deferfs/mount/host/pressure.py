"""Memory pressure as the kernel reports it to a process (`pressure_watch.py` waits for it).

- PSI triggers (`memory.pressure` of our own cgroup, else /proc/pressure/memory): tasks have lost time to reclaim.
- cgroup version 1, `memory.pressure_level`: memory of our cgroup is being reclaimed.

Each source is a descriptor that becomes readable; a PSI file supports only POLLPRI, so it is wrapped in an epoll
instance. Sources: Documentation/accounting/psi.rst and admin-guide/cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from deferfs.mount.host.own_cgroup import own_cgroups

PSI_TRIGGER: Final = b"some 200000 2000000\0"
"""200 ms lost in 2 s. Without CAP_SYS_RESOURCE the window must be a multiple of 2 s."""
LEVEL: Final = "low"
"""Reclaim has begun; at this level caches should shrink before it gets worse."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Source:
    """`fd` becomes readable when there is pressure; `acknowledge` makes it unreadable again."""

    name: str
    fd: int
    acknowledge: Callable[[], object]
    _closers: list[Callable[[], object]] = field(default_factory=list)

    def close(self) -> None:
        for closer in reversed(self._closers):
            closer()


def open_sources(
    *, proc: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup", system: str = "/proc/pressure/memory"
) -> list[Source]:
    """All available sources; possibly none."""
    found: list[Source] = []
    psi = system
    for version, directory in own_cgroups(proc=proc, root=root):
        if version == 1:
            _add(found, _open_level, directory)
        elif os.path.exists(os.path.join(directory, "memory.pressure")):
            psi = os.path.join(directory, "memory.pressure")
    _add(found, _open_psi, psi)
    return found


def _add(found: list[Source], opener: Callable[[str], Source], path: str) -> None:
    try:
        found.append(opener(path))
    except OSError as error:
        log.debug("no pressure events from %s: %s", path, error.strerror)


def _open_psi(path: str) -> Source:
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, PSI_TRIGGER)
        poll = select.epoll()
        poll.register(fd, select.EPOLLPRI)
    except OSError:
        os.close(fd)
        raise
    return Source(f"psi:{path}", poll.fileno(), lambda: poll.poll(0), [lambda: os.close(fd), poll.close])


def _open_level(directory: str) -> Source:
    """The eventfd keeps working when the other descriptors are closed."""
    event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        level = os.open(os.path.join(directory, "memory.pressure_level"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            control = os.open(os.path.join(directory, "cgroup.event_control"), os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(control, f"{event} {level} {LEVEL}".encode())
            finally:
                os.close(control)
        finally:
            os.close(level)
    except OSError:
        os.close(event)
        raise
    return Source(f"level:{directory}", event, lambda: os.eventfd_read(event), [lambda: os.close(event)])
