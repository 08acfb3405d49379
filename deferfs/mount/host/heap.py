"""The heap of the C library: how it keeps and gives back what the daemon has freed.

Measured with 16 writers of 1 MiB and with trees copied in and removed, at a budget of 16 MiB: glibc's rule for large
buffers (from the first that is freed on, those of 1 MiB come from the heap) leaves the highest resident size as it is
with each buffer mapped by itself (M_MMAP_THRESHOLD: 59 and 57 MB, 61 and 61 MB), while mapping costs a page fault every
4 KiB: 350 us for a buffer that the heap hands out in 55 us. So the rule stays. What it keeps afterwards, about 5 MB,
`malloc_trim` gives back, and is called when the daemon is idle. Threads have heaps of their own by default, which are
trimmed less well; one is enough, for the threads mostly wait.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8
_libc: Final = ctypes.CDLL(None)


def configure() -> bool:
    """One heap for all threads; before any is started. False where the C library is not glibc."""
    try:
        return bool(_libc.mallopt(_M_ARENA_MAX, 1))
    except AttributeError:
        return False


def trim() -> bool:
    """Give back free pages, in the middle of the heap too; whether there were any. May take milliseconds."""
    try:
        return bool(_libc.malloc_trim(ctypes.c_size_t(0)))
    except AttributeError:
        return False
