"""`deferfs bench`, interrupted in a scenario that cleans up nothing: the harness sweeps."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deferfs.measure.host.cgroup import CGROUP_ROOT
from deferfs.measure.host.sweep import loops_below
from tests.cli.conftest import environment_of_the_program

pytestmark = pytest.mark.mounted

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60.0
UNTIDY = """\
import os, pathlib, subprocess, sys, time
from deferfs.measure import catalogue
from deferfs.measure.host import commands
from deferfs.measure.host.cgroup import MemoryCgroup
from tests.unit.measure.fakes import Fake

_, ready, *words = sys.argv

class Untidy(Fake):
    def prepared(self, parameters, surroundings):
        scratch = surroundings.scratch
        for name in ("deferfs.img", "disk.img"):
            subprocess.run(["truncate", "-s", "64M", scratch / name], check=True)
        (scratch / "a b").mkdir()
        (scratch / "over").mkdir()
        commands.run_command([*commands.deferfs_command(), "mkfs", "-f", str(scratch / "deferfs.img")])
        commands.run_command([*commands.deferfs_command(), "mount", str(scratch / "deferfs.img"), str(scratch / "a b")])
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch / "over"], check=True)
        subprocess.run(["losetup", "--find", scratch / "disk.img"], check=True)
        if surroundings.hierarchy:
            MemoryCgroup(surroundings.hierarchy, f"deferfs-bench-{os.getpid()}-left", 64 << 20).__enter__()
        return super().prepared(parameters, surroundings)

def hang(side, loop, number):
    if number:
        pathlib.Path(ready).write_text(f"{os.getpid()}")
        time.sleep(60)

catalogue.find_scenarios = lambda packages: {"fake": Untidy(before=hang)}
from deferfs.cli.main import main
sys.argv = ["deferfs", "bench", *words]
main()
"""


def test_an_interrupt_leaves_no_mount_loop_device_or_cgroup(tmp_path: Path) -> None:
    scratch, ready = tmp_path / "scratch", tmp_path / "ready"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", UNTIDY, str(ready), "fake", "--scratch", str(scratch)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of_the_program(PYTHONPATH=str(ROOT)),
    )
    try:
        deadline = time.monotonic() + SECONDS_MAX
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        assert loops_below(scratch) != []
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS_MAX)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert "Interrupted" in out
    assert "Traceback" not in err
    assert err.count("which was left mounted") == 2
    assert list(scratch.iterdir()) == []
    assert loops_below(scratch) == []
    assert list(CGROUP_ROOT.rglob(f"deferfs-bench-{process.pid}*")) == []
