"""The heap of the C library: how it keeps and gives back what the daemon has freed.

A request carries up to 1 MiB. By default glibc takes such a buffer from the kernel by itself (mmap) at first, but
raises the size from which it does so when one is freed, up to 32 MiB: from then on buffers come from the heap, between
objects that live long, and what is freed stays. A fixed threshold keeps them out of it. Threads get heaps of their own
by default; one is enough, for the threads mostly wait.
"""

from __future__ import annotations

import ctypes
from typing import Final

MMAP_THRESHOLD_BYTES: Final = 128 * 1024
"""Buffers from this size on are mapped, and unmapped when they are freed: the default before it is raised. Setting it
keeps it there."""
TRIM_THRESHOLD_BYTES: Final = 256 * 1024
"""Freed bytes at the end of the heap from which on they are given back."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_libc: Final = ctypes.CDLL(None)


def configure() -> bool:
    """Set it up, before any thread is started; False where the C library has no such settings (it is not glibc)."""
    try:
        mallopt = _libc.mallopt
    except AttributeError:
        return False
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
    )
    accepted = [bool(mallopt(which, value)) for which, value in settings]
    return all(accepted)
