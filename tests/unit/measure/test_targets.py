from pathlib import Path

import pytest

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.targets import DirectoryTarget, copy_image, run_command


def test_a_directory_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("stays")
    target = DirectoryTarget(tmp_path)
    target.prepare(200, 16)
    with target.opened("as-mounted") as opened:
        (opened.root / "churn").mkdir()
        (opened.root / "churn/file").touch()
        (opened.root / "probe-write").touch()
        assert opened.statistics() is None
        assert (opened.root / "victims/0000/15").exists()
    assert [entry.name for entry in target.scratch.iterdir()] == ["tree"]
    target.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_a_live_mount_is_switched_for_each_mode(tmp_path: Path) -> None:
    switched: list[str] = []
    target = DirectoryTarget(tmp_path, lambda path: {"pid": 1}, lambda path, policy: switched.append(policy))
    assert (target.baseline, target.candidate) == ("inline", "deferred")
    for mode in ("inline", "deferred", "none"):
        with target.opened(mode) as opened:
            assert opened.statistics() == {"pid": 1}
    assert switched == ["inline", "deferred", "deferred"]


def test_a_target_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="is not a directory"):
        DirectoryTarget(tmp_path / "missing")


def test_a_copy_keeps_contents_and_holes(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    with source.open("wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    copy_image(source, copy)
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20


def test_a_failing_command_is_told_with_its_last_words() -> None:
    with pytest.raises(DeferfsError, match="failed with code 3: second"):
        run_command(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    with pytest.raises(EnvironmentProblem, match="cannot run"):
        run_command(["no-such-command-anywhere"])
    assert run_command(["echo", "said"]) == "said\n"
