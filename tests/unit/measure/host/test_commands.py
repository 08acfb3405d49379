from pathlib import Path

import pytest

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.host.commands import copy_image, run_command


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
