"""ext4, XFS, btrfs and the real mount of deferfs keep what the oracle asks for, in crash states of a recorded disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deferfs.cli.main import run as deferfs
from deferfs.crash.examination import CrashError
from deferfs.crash.other import judge
from deferfs.crash.other.filesystems import FILESYSTEMS, Filesystem, filesystem
from deferfs.crash.other.recorder import BLOCK_BYTES, mounted, recorded_disk
from deferfs.crash.other.workload import Notes, Version, is_allowed
from deferfs.device import FlushRecord, WriteRecord
from deferfs.errors import EnvironmentProblem

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.needs("btrfs", "e2fsck", "mkfs.btrfs", "mkfs.ext4", "mkfs.xfs", "xfs_repair"),
]
STATES = {"ext4": 25, "xfs": 25, "btrfs": 15, "deferfs": 2}
LONG_STATES = {"ext4": 1500, "xfs": 1000, "btrfs": 1000, "deferfs": 300}


def usable(name: str) -> Filesystem:
    try:
        return filesystem(name)
    except EnvironmentProblem as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", FILESYSTEMS)
def test_the_filesystem_keeps_what_fsync_promised(name: str, tmp_path: Path) -> None:
    states = STATES[name]
    assert judge.explore_other(usable(name), tmp_path, steps=40, states=states, seed=1) > states // 2


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FILESYSTEMS)
def test_the_filesystem_keeps_what_fsync_promised_in_many_states(name: str, tmp_path: Path) -> None:
    states = LONG_STATES[name]
    assert judge.explore_other(usable(name), tmp_path, steps=200, states=states, seed=2) > states // 2


def test_the_log_is_what_was_written(tmp_path: Path) -> None:
    """Byte for byte, and a flush for an fsync of the device; what was answered lies before a mark."""
    with recorded_disk(1 << 20, tmp_path) as disk:
        block = os.urandom(BLOCK_BYTES)
        fd = os.open(disk.device, os.O_RDWR)
        try:
            os.pwrite(fd, block * 2, 3 * BLOCK_BYTES)
            os.fsync(fd)
            mark = disk.mark()
            os.pwrite(fd, block, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        records, positions = disk.records([mark])
    before, after = records[: positions[0]], records[positions[0] :]
    assert [record for record in before if isinstance(record, WriteRecord)] == [
        WriteRecord(3 * BLOCK_BYTES, block),
        WriteRecord(4 * BLOCK_BYTES, block),
    ]
    assert before[-1] == FlushRecord()
    assert after[0] == WriteRecord(0, block)
    assert FlushRecord() in after


def test_a_disk_that_lies_about_flushes_is_detected(tmp_path: Path) -> None:
    """Without the flushes in the log, everything since the mkfs may be lost: ext4 cannot keep its promises then."""
    ext4 = usable("ext4")
    recording = judge.record(ext4, tmp_path, steps=40, seed=1)
    kept = [
        record if index < recording.first or not isinstance(record, FlushRecord) else WriteRecord(0, b"")
        for index, record in enumerate(recording.records)
    ]
    lying = judge.Recording(recording.size, kept, recording.notes, recording.first)
    found = judge.Judge(ext4, lying.notes, tmp_path)

    def judge_all() -> None:
        for pages, state in judge.crash_states(lying, 30, 1):
            found.judge(pages, state)

    with pytest.raises(CrashError):
        judge_all()


def test_a_filesystem_that_cannot_be_made(tmp_path: Path) -> None:
    """One clear error, and nothing is left behind."""
    broken = Filesystem("ext4", 1 << 20, ("false",), ("true",))
    with pytest.raises(EnvironmentProblem, match="false"):
        judge.record(broken, tmp_path, steps=1, seed=1)
    assert not os.path.ismount(tmp_path / "server")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    usable("ext4")
    assert deferfs(["crash", "other", "ext4", "--states", "5", "--steps", "10", "-q"]) == 0
    assert "all as promised" in capsys.readouterr().out
    assert deferfs(["crash", "other", "minix"]) == 2
    assert "no such filesystem: minix; there are ext4, xfs, btrfs, deferfs" in capsys.readouterr().err


def test_allowed_contents() -> None:
    notes = Notes({"f": [Version(0, None, durable=0), Version(5, b"ab", durable=9), Version(20, b"abcd", grows=True)]})
    assert [v.content for v in notes.allowed("f", 4, 4)] == [None]
    assert [v.content for v in notes.allowed("f", 6, 8)] == [None, b"ab"]
    assert [v.content for v in notes.allowed("f", 6, 9)] == [b"ab"]
    late = notes.allowed("f", 30, 30)
    assert is_allowed(b"ab", late)
    assert is_allowed(b"ab\0d", late)
    assert is_allowed(b"abc", late)
    assert not is_allowed(b"ax", late)
    assert not is_allowed(b"", late)
    assert not is_allowed(None, late)
    assert is_allowed(None, notes.allowed("f", -1, 4))


def test_the_tools_are_named_when_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda command: None)
    with pytest.raises(EnvironmentProblem, match=r"mkfs\.xfs, xfs_repair is missing: install the package xfsprogs"):
        filesystem("xfs")


def test_everything_is_detached(tmp_path: Path) -> None:
    """After a normal end: no mount, no loop device on the disk, no server."""
    ext4 = usable("ext4")
    with recorded_disk(ext4.size, tmp_path) as disk:
        ext4.format(disk.device)
        with mounted(ext4, disk.device, tmp_path / "mnt") as root:
            (root / "file").write_bytes(b"x")
        device = disk.device
    done = subprocess.run(["losetup", device], capture_output=True, text=True, check=False)
    assert str(tmp_path) not in done.stdout
    assert not os.path.ismount(tmp_path / "server")


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C while states are being mounted: it reaches the whole group of processes that the terminal knows."""
    usable("ext4")
    command = ("-m", "deferfs", "crash", "other", "ext4", "--states", "100000", "--steps", "60")
    process = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert "states of ext4" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "deferfs: interrupted"
    assert not list(tmp_path.iterdir())
