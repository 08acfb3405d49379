"""Locks that another process holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deferfs.device import record_lock

HOLD = """
import ctypes, fcntl, os, sys
ctypes.CDLL(None).prctl(15, os.fsencode(sys.argv[2]), 0, 0, 0)
fd = os.open(sys.argv[1], os.O_RDWR)
{lock}
print("held", flush=True)
sys.stdin.read()
"""
SHARED = "fcntl.flock(fd, fcntl.LOCK_SH)"

EXCLUSIVE = "fcntl.flock(fd, fcntl.LOCK_EX)"


@contextmanager
def holding(path: Path, lock: str, name: str = "holder") -> Iterator[int]:
    """A process of that name holds the lock; its number."""
    record = record_lock.request(0, 0, exclusive=True).hex()
    command = [sys.executable, "-c", HOLD.format(lock=lock), str(path), name, record]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.stdin.close()
