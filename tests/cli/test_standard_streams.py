"""Programs whose caller has closed standard input, output or error, as fsck(8) does at boot."""

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Outcome, environment_of_the_program
from tests.examples import night

CLOSED = [streams for count in (1, 2, 3) for streams in itertools.combinations((0, 1, 2), count)]
CLOSED_FOR_A_MOUNT = [streams if streams in ((0,), (1, 2), (0, 1, 2)) else night(streams) for streams in CLOSED]


def run_without(streams: Sequence[int], *arguments: object) -> tuple[int, str]:
    """Run `deferfs ARGUMENTS` with these descriptors closed: its exit code, and what it said on the others."""
    closed = " ".join(f"{fd}<&-" for fd in streams)
    code = "from deferfs.cli.entry import main; main()"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-P", "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment_of_the_program(),
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("streams", CLOSED, ids=str)
def test_a_check_and_a_new_filesystem(streams: Sequence[int], image: Path) -> None:
    code, said = run_without(streams, "fsck", "-f", image)
    assert code == 0, said
    assert said.startswith(f"{image}: clean") if 1 not in streams else said == ""
    assert run_without(streams, "mkfs", "-f", "-q", image) == (0, "")


@pytest.mark.mounted
@pytest.mark.parametrize("streams", CLOSED_FOR_A_MOUNT, ids=str)
def test_output_to_a_mount_is_there_after_the_unmount(
    streams: Sequence[int], image: Path, directory: Path, program: Command
) -> None:
    """The daemon lets go of the terminal, and not of an image that has got the number of a closed stream."""
    assert run_without(streams, "mount", image, directory) == (0, "")
    try:
        (directory / "file").write_bytes(b"written")
    finally:
        assert program("umount", directory) == Outcome(0, "", "")
    assert program("mount", "-o", "ro", image, directory) == Outcome(0, "", "")
    try:
        assert (directory / "file").read_bytes() == b"written"
    finally:
        assert program("umount", directory) == Outcome(0, "", "")


@pytest.mark.mounted
def test_a_command_on_a_scratch_mount_has_all_three(tmp_path: Path) -> None:
    """What is opened for a closed stream is handed on."""
    proof = tmp_path / "proof"
    looks = f"import os; [os.fstat(fd) for fd in (0, 1, 2)]; open({str(proof)!r}, 'w').write('all open')"
    code, _ = run_without((0, 1, 2), "run", "--size", "16M", "--", sys.executable, "-c", looks)
    assert (code, proof.read_text()) == (0, "all open")
