from pathlib import Path

import pytest

from deferfs.measure.environment import missing_for_mounts, usable_hierarchy


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    hierarchy, problem = usable_hierarchy(1 << 20, tmp_path)
    assert hierarchy is None
    assert "no memory cgroup controller" in problem
    assert "without a memory limit" in problem


def test_without_root_there_is_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    hierarchy, problem = usable_hierarchy(1 << 20, tmp_path)
    assert hierarchy is None
    assert problem.startswith("not root")


def test_a_cgroup_that_cannot_be_made_is_a_problem_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory")
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    hierarchy, problem = usable_hierarchy(1 << 20, tmp_path)  # no control files appear in it
    assert hierarchy is None
    assert "cannot set up the memory cgroup" in problem
    assert "\n" not in problem


def test_missing_requirements_of_a_mount_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "fuse"
    assert missing_for_mounts(device) == f"{device} is missing; load the fuse module"
    device.touch()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert missing_for_mounts(device) == "not root"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert missing_for_mounts(device) == ""
