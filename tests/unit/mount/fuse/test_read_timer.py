from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[4]

_READ_NOTHING = """
import ctypes, errno, os, time
from deferfs.mount.fuse.read_timer import ReadTimer
libc = ctypes.CDLL(None, use_errno=True)
reading, writing = os.pipe()
buffer = ctypes.create_string_buffer(1)
with ReadTimer() as timer:
    for _ in range(3):
        timer.start()
        assert libc.read(reading, buffer, 1) == -1
        print(errno.errorcode[ctypes.get_errno()])
    os.write(writing, b"!")
    timer.start()
    print(libc.read(reading, buffer, 1))
time.sleep(0.2)  # it must not ring any more: SIGALRM would end the process
print("alive")
"""


def test_a_read_that_has_nothing_to_read_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _READ_NOTHING], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["EINTR", "EINTR", "EINTR", "1", "alive"]
