"""The process that sends a request, as far as the daemon itself has to decide on its privileges.

The kernel checks permissions. What it leaves to the filesystem is what a new owner, a new list or a truncation takes
from the mode, and which names of attributes are shown: that depends on capabilities(7) and groups, of which a request
says nothing. So they are read from /proc, and only when they matter.

**Invariant:** what cannot be determined counts as not allowed, except that user 0 without readable data (in another pid
namespace, or ended) counts as root.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from deferfs.mount.host.process_status import status_of

if TYPE_CHECKING:
    import pyfuse3

CAP_FSETID: Final = 4
"""Allows a process to leave set-user-id and set-group-id bits on files that it changes."""
CAP_SYS_ADMIN: Final = 21


class Caller:
    """The sender of one request: `uid` and `gid` for file access, `pid` of its thread."""

    __slots__ = ("_pid", "_proc", "_status", "gid", "uid")

    def __init__(self, ctx: pyfuse3.RequestContext, *, proc: str = "/proc") -> None:
        self.uid: int = ctx.uid
        self.gid: int = ctx.gid
        self._pid: int = ctx.pid
        self._proc = proc
        self._status: _Status | None = None

    def may(self, capability: int) -> bool:
        """Whether the process has a capability in the daemon's own user namespace: that of a container does not
        count."""
        status = self._read()
        if status is None:
            return self.uid == 0
        return bool(status.capabilities >> capability & 1) and self._is_of_our_namespace()

    def in_group(self, gid: int) -> bool:
        """Whether the process belongs to a group."""
        status = self._read()
        return gid == self.gid or (status is not None and gid in status.groups)

    def vouches_for(self, gid: int) -> bool:
        """Whether a file of this group may keep a set-group-id bit that the process sets or leaves;
        `in_group_or_capable` of the kernel."""
        return self.in_group(gid) or self.may(CAP_FSETID)

    def _read(self) -> _Status | None:
        if self._status is None:
            self._status = _status(self._pid, self._proc)
        return self._status

    def _is_of_our_namespace(self) -> bool:
        """Whether the process is in the daemon's user namespace. If the link cannot be read, only uid 0 counts as
        privileged."""
        try:
            theirs = os.stat(f"{self._proc}/{self._pid}/ns/user")
            ours = os.stat(f"{self._proc}/self/ns/user")
        except OSError:
            return self.uid == 0
        return os.path.samestat(theirs, ours)


class _Status(NamedTuple):
    """From /proc/PID/status: supplementary groups, and effective capabilities as bits."""

    groups: frozenset[int]
    capabilities: int


def _status(pid: int, proc: str) -> _Status | None:
    """None when it cannot be read."""
    fields = status_of(pid, proc=proc)
    try:
        return _Status(frozenset(map(int, fields["Groups"].split())), int(fields["CapEff"], 16))
    except (ValueError, KeyError):
        return None
