"""fallocate(2) with FALLOC_FL_PUNCH_HOLE, which the standard library lacks."""

import ctypes
import errno
import os
from typing import Final

# From linux/falloc.h.
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02

_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    _fallocate.restype = ctypes.c_int


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Deallocate a byte range of a regular file or block device. It then reads as zeros.

    Raises `OSError`: EOPNOTSUPP when the C library, the filesystem or the device does not support it.
    """
    if _fallocate is None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    while _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
