"""Standard input, output and error, which a caller may have closed: fsck(8) -A closes standard input."""

from __future__ import annotations

import os
import sys
from typing import Final

_STREAMS: Final = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))
"""(descriptor, name in `sys`, mode)."""


def open_closed_ones() -> None:
    """Put /dev/null where one is closed.

    The next file to be opened would get its number: an image that is descriptor 1 takes what libraries print, and one
    that is descriptor 0 is closed when the daemon detaches from the terminal. Python has None for a closed stream.
    """
    for fd, name, mode in _STREAMS:
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == fd, f"descriptor {fd} was closed, and the lowest free one is {opened}"
            os.set_inheritable(fd, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
