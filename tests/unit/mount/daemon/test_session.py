import subprocess
import sys
from itertools import islice
from pathlib import Path

from deferfs.mount.daemon.session import random_numbers

REPOSITORY = Path(__file__).parents[4]


def test_random_numbers_have_32_bits_and_do_not_repeat() -> None:
    draw = random_numbers()
    drawn = list(islice(iter(draw, None), 2000))
    assert all(0 <= number < 1 << 32 for number in drawn)
    assert max(drawn) >= 1 << 31
    assert len(set(drawn)) > 1990


def test_two_mounts_draw_different_numbers() -> None:
    first, second = random_numbers(), random_numbers()
    assert [first() for _ in range(8)] != [second() for _ in range(8)]


_FIRST_OF_ALL = """
import os
from deferfs.mount.daemon import session
from deferfs.mount.host import syscalls
from deferfs.mount.daemon.fork import Handshake
from deferfs.mount.host.options import MountOptions

class Reached(BaseException):
    pass

def look():
    raise Reached(len(os.listdir("/proc/self/task")))

syscalls.set_io_flusher = look
try:
    session.serve_mount("/nowhere", "/nowhere", MountOptions(), None, foreground=True, notice=print)
except Reached as reached:
    print(reached)
"""


def test_the_daemon_becomes_an_io_flusher_before_any_thread_starts() -> None:
    """PR_SET_IO_FLUSHER is for a thread and those that it starts."""
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_OF_ALL], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
