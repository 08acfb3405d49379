"""`kill -9` of the daemon at random moments under load, again and again on one image: nothing fsynced is ever lost."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from deferfs.crash.exploration import EVICT_MODES
from tests.mounted.killing import PROGRAMS, after_requests, assert_as_noted, deleted_but_open, interrupt, recover
from tests.mounted.scratch import Scratch, run

pytestmark = pytest.mark.mounted
ROUNDS = 2
LONG_ROUNDS = 100
"""For each mode."""
LOAD = """
for name in $(seq 1 100000); do
    mkdir -p load/$((name % 7)) && head -c $((name * 977 % 90000)) /dev/zero > load/$((name % 7))/$name &&
    mv load/$((name % 7))/$name load/moved && ln -f load/moved load/again && rm -f load/again load/moved || exit 1
done
"""


def kill_at_random(evict: str, directory: Path, rounds: int, seed: int) -> None:
    """One image, mounted and killed `rounds` times. The moment is drawn as a number of requests."""
    dice = random.Random(seed)
    scratch = Scratch(directory / "scratch", evict=evict, size="64M")
    try:
        for number in range(rounds):
            _one_round(scratch, directory, number, dice)
            scratch.unmount_and_check()
    finally:
        scratch.end()


def _one_round(scratch: Scratch, directory: Path, number: int, dice: random.Random) -> None:
    mount = scratch.mount(f"commit={dice.choice((1, 5))}")
    notes = directory / f"notes{number}"
    notes.touch()
    files = mount / "files"
    with deleted_but_open(mount):
        scratch.sync()
        load = subprocess.Popen(["sh", "-c", LOAD], cwd=mount, stderr=subprocess.DEVNULL)
        try:
            moment = after_requests(scratch, dice.randrange(20, 600), "create", "mkdir", "write", "rename", "unlink")
            program = [sys.executable, PROGRAMS / "fsync_writer.py", files, notes]
            interrupt(scratch, program, moment)
            load.wait(60)
        finally:
            load.kill()
            load.wait()
    mount = recover(scratch)
    assert_as_noted(notes, files, least=0)
    run("rm", "-rf", files, mount / "load")


@pytest.mark.parametrize("evict", EVICT_MODES)
def test_kill_at_random(evict: str, tmp_path: Path) -> None:
    kill_at_random(evict, tmp_path, ROUNDS, 1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("evict", EVICT_MODES)
def test_kill_at_random_a_hundred_times(evict: str, tmp_path: Path) -> None:
    kill_at_random(evict, tmp_path, LONG_ROUNDS, 2)
