"""The heap of the C library: settings for how it retains memory that the daemon has freed.

Measured with 16 writers of 1 MiB and with trees copied in and removed, at a budget of 16 MiB: glibc's dynamic threshold
for large buffers (after the first free, buffers of 1 MiB come from the heap) has the same peak resident size as mapping
each buffer separately (M_MMAP_THRESHOLD: 59 and 57 MB, 61 and 61 MB), while a mapping costs a page fault every 4 KiB:
350 us for a buffer that the heap provides in 55 us. So the dynamic threshold stays. The 5 MB or so that it retains are
returned by `malloc_trim`, called when the daemon is idle. Threads have heaps of their own by default, which are trimmed
less well; one heap is enough, as the threads mostly wait.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8
_libc: Final = ctypes.CDLL(None)


def configure() -> bool:
    """Use one heap for all threads; to be called before any is started. False where the C library is not glibc."""
    try:
        return bool(_libc.mallopt(_M_ARENA_MAX, 1))
    except AttributeError:
        return False


def trim() -> bool:
    """Return free pages to the kernel, including those inside the heap; whether there were any. May take
    milliseconds."""
    try:
        return bool(_libc.malloc_trim(ctypes.c_size_t(0)))
    except AttributeError:
        return False
