"""Malformed traffic: requests that a correct kernel does not send. Counted by kind, logged once for each kind, answered
with an errno if the request has a reply, and never raised as an exception.

FORGETs are counted where references are counted (`reclaim/cache.py`); all counts are shown as `inodes.anomalies`.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from typing import Final

from deferfs.errors import FsError

_log: Final = logging.getLogger(__name__)

_MEANING: Final = {
    "forget_unknown": "a FORGET of an inode that is not known",
    "forget_excess": "a FORGET of more lookups than there were",
    "release_unknown": "a RELEASE of a handle that is not open",
    "unknown_handle": "a request with a handle that is not open",
    "stale_inode": "a request for an inode that is not in use",
}


class Anomalies:
    """`counts` is shared with the inode cache."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._told: set[str] = set()

    def note(self, kind: str) -> None:
        """Count one request."""
        self._counts[kind] += 1
        self.tell()

    def note_stale(self, error: FsError) -> None:
        """Count a reply of ESTALE: the kernel sent the number of an inode that does not exist."""
        if error.errno == errno.ESTALE:
            self.note("stale_inode")

    def tell(self) -> None:
        """Log kinds that have not been logged before."""
        if len(self._told) == len(self._counts):
            return
        for kind in self._counts.keys() - self._told:
            self._told.add(kind)
            _log.warning("malformed traffic: %s; counted from now on, not logged again", _MEANING.get(kind, kind))
