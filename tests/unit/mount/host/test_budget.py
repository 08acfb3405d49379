"""The memory budget from the limits of the daemon's cgroup."""

from pathlib import Path

import pytest

from deferfs.limits import MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, MIB, RESIDENT_BASE_BYTES
from deferfs.mount.host.budget import default_budget


def make(tmp_path: Path, membership: str, limits: dict[str, str]) -> int:
    proc = tmp_path / "cgroup"
    proc.write_text(membership)
    for name, text in limits.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return default_budget(proc=str(proc), root=str(tmp_path / "fs"))


def test_the_budget_without_a_limit(tmp_path: Path) -> None:
    assert make(tmp_path, "0::/\n", {"memory.max": "max\n"}) == MEMORY_BYTES_DEFAULT
    assert default_budget(proc=str(tmp_path / "none")) == MEMORY_BYTES_DEFAULT


def test_half_of_a_version_2_limit_anywhere_above(tmp_path: Path) -> None:
    limits = {"a/b/memory.max": "max\n", "a/memory.max": f"{200 << 20}\n"}
    assert make(tmp_path, "0::/a/b\n", limits) == 100 << 20


def test_half_of_a_version_1_limit(tmp_path: Path) -> None:
    limits = {"memory/a/memory.limit_in_bytes": f"{160 << 20}\n"}
    assert make(tmp_path, "5:cpu:/x\n4:memory:/a\n0::/\n", limits) == 80 << 20


def test_the_budget_is_never_below_the_minimum(tmp_path: Path) -> None:
    assert make(tmp_path, "0::/\n", {"memory.max": "1000\n"}) == MEMORY_BYTES_MIN


def test_the_throttling_limit_of_version_2_counts_as_well(tmp_path: Path) -> None:
    limits = {"a/memory.max": "max\n", "a/memory.high": f"{180 << 20}\n"}
    assert make(tmp_path, "0::/a\n", limits) == 90 << 20


def test_both_versions_beside_each_other(tmp_path: Path) -> None:
    limits = {"unified/a/memory.max": f"{150 << 20}\n", "memory/b/memory.limit_in_bytes": f"{190 << 20}\n"}
    assert make(tmp_path, "4:memory:/b\n0::/a\n", limits) == 75 << 20


@pytest.mark.parametrize(("limit", "warned"), [(96, False), (66, False), (65, True), (48, True)])
def test_a_small_limit_leaves_room_for_the_daemon_itself(
    limit: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    budget = make(tmp_path, "0::/a\n", {"a/memory.max": f"{limit * MIB}\n"})
    assert budget == max(MEMORY_BYTES_MIN, limit * MIB - RESIDENT_BASE_BYTES)
    assert [f"limited to {limit} MiB" in record.getMessage() for record in caplog.records] == [True] * warned
