from __future__ import annotations

import os
import struct

import pytest

from deferfs.mount.fuse.prune import prune


def test_the_message_is_the_kernels() -> None:
    """struct fuse_out_header, struct fuse_notify_prune_out and the node ids of <linux/fuse.h>."""
    reader, writer = os.pipe()
    try:
        prune(writer, [8, 1 << 40])
        message = os.read(reader, 100)
    finally:
        os.close(reader)
        os.close(writer)
    assert struct.unpack("=IiQ IIQ QQ", message) == (len(message), 9, 0, 2, 0, 0, 8, 1 << 40)


def test_an_error_is_raised() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            prune(reader, [8])
    finally:
        os.close(reader)
