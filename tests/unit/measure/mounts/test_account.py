"""What a pass has cost, from numbers that are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from deferfs.contract.statistics import Totals
from deferfs.measure.mounts.account import Account, waits_between
from deferfs.measure.mounts.slow_mount import SlowMount
from deferfs.measure.scenario import Wait
from tests.unit.measure.slow_mounts import FakeDisk, as_disk, fake_machine


def test_counters_are_those_of_the_pass_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = fake_machine(monkeypatch)
    disk = FakeDisk(tmp_path, "none", tmp_path, lambda pid: None)
    disk.numbers.update(writes=7, write_bytes=7000)
    memory, gc = machine.statistics["memory"], machine.statistics["gc"]
    memory["direct_reclaims_total"], gc["inactivated_total"] = 3, 40
    account = Account(SlowMount(tmp_path, as_disk(disk), machine.surroundings(tmp_path)))
    memory["used_bytes"] = 5 << 20
    account.watch()
    memory.update(used_bytes=1 << 20, direct_reclaims_total=13)
    gc.update(inactivated_total=100, queued=9)
    machine.statistics["waits"] = {"memory": {"count": 2, "total_ns": 30, "max_ns": 20, "log2_ns": {}}}
    disk.numbers.update(writes=10, write_bytes=12000, flushes=2)
    machine.mounted.add(str(tmp_path))
    account.settle()
    machine.statistics.clear()  # there is nothing to ask any more
    counters = account.counters()
    assert counters["used_highest_bytes"] == 5 << 20
    assert counters["direct_reclaims_total"] == 10
    assert (counters["inactivated_total"], counters["queued_total"]) == (60, 9)
    assert (counters["disk_writes_total"], counters["disk_written_bytes"], counters["disk_flushes_total"]) == (
        3,
        5000,
        2,
    )
    assert counters["owed_seconds"] == account.owed_seconds >= 0
    assert account.waits() == {"memory": Wait(2, 30, 20)}
    assert machine.commands == [f"umount {tmp_path}"]


def test_waits_between_two_looks() -> None:
    log = Totals(count=1, total_ns=3, max_ns=3)
    before = {"io": Totals(count=5, total_ns=50, max_ns=20), "log": log}
    after = {
        "io": Totals(count=8, total_ns=90, max_ns=20),
        "log": log,
        "gc": Totals(count=1, total_ns=9, max_ns=9),
    }
    assert waits_between(before, after) == {"io": Wait(3, 40, 0), "gc": Wait(1, 9, 9)}
