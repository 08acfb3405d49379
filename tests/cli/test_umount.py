"""`deferfs umount`."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Outcome, is_one_line


@pytest.mark.mounted
def test_the_image_is_clean_when_it_returns(mounted: Path, image: Path, program: Command) -> None:
    (mounted / "file").write_bytes(bytes(3_000_000))
    assert program("umount", mounted) == Outcome(0, "", "")
    assert program("info", image).out.endswith("state    clean\n")


@pytest.mark.mounted
def test_the_image_names_the_mount_too(mounted: Path, image: Path, program: Command) -> None:
    assert program("umount", image) == Outcome(0, "", "")
    assert not os.path.ismount(mounted)


@pytest.mark.mounted
def test_a_busy_mount_tells_by_whom(mounted: Path, program: Command) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=mounted) as user:
        outcome = program("umount", mounted)
        user.kill()
    assert outcome.code == 1
    assert outcome.err == (f"deferfs: {mounted}: busy: used by sleep (pid {user.pid}, working directory)\n")
    with (mounted / "file").open("w"):
        outcome = program("umount", mounted)
    assert f"(pid {os.getpid()}, {mounted}/file)" in outcome.err
    assert is_one_line(outcome.err)


@pytest.mark.mounted
def test_a_directory_inside_is_no_mountpoint(mounted: Path, program: Command) -> None:
    (mounted / "inside").mkdir()
    outcome = program("umount", mounted / "inside")
    assert outcome.code == 1
    assert outcome.err == (f"deferfs: {mounted}/inside: not a mountpoint; it is inside of {mounted}\n")
    assert os.path.ismount(mounted)


@pytest.mark.mounted
def test_a_bind_mount_keeps_the_daemon(mounted: Path, image: Path, tmp_path: Path, program: Command) -> None:
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["mount", "--bind", mounted, other], check=True)
    outcome = program("umount", mounted)
    assert outcome.code == 0
    assert outcome.err == f"deferfs: {mounted}: unmounted; the image is still mounted on {other}\n"
    (other / "file").touch()
    assert program("umount", other) == Outcome(0, "", "")
    assert program("info", image).out.endswith("state    clean\n")


def test_umount_where_nothing_is_mounted(directory: Path, command: Command) -> None:
    outcome = command("umount", directory)
    assert outcome.code == 1
    assert f"{directory}: no deferfs is mounted here" in outcome.err
    assert is_one_line(outcome.err)
