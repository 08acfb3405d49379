from pathlib import Path

import pytest

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.host.commands import copy_image, preloaded_commands, run_command, run_deferfs


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


def said_by(words: list[str], seconds_max: float = 60.0) -> tuple[str, str]:
    """What `deferfs WORDS` prints, and the error that it ends in."""
    try:
        return run_deferfs(words, seconds_max), ""
    except DeferfsError as error:
        return "", str(error)


@pytest.mark.parametrize("words", [["mkfs", "-h"], ["info", "none"], ["fsck"]])
def test_a_preloaded_command_ends_as_one_that_starts_afresh(words: list[str]) -> None:
    with preloaded_commands():
        preloaded = said_by(words)
    assert said_by(words) == preloaded
    assert any(preloaded)


def test_after_a_preloaded_command_that_takes_too_long_others_are_run() -> None:
    with preloaded_commands():
        assert "did not end in 0 s" in said_by(["crash", "explore", "--time", "60", "--quiet"], 0.1)[1]
        assert said_by(["--version"])[0].startswith("deferfs")
