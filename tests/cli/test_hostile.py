"""Images made to do harm, in a process with little memory and little time: no crash, no hang, no exhaustion."""

import os
import subprocess
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from deferfs.mount.daemon.image import load_superblock
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import FORM_EXTENTS, INODE_FILE_INO, Inode
from deferfs.ondisk.node import EXTENT
from tests.cli.conftest import Command
from tests.cli.limited import UNCHANGED, WALL_SECONDS, Ended, commands, run, use
from tests.unit.check.hostile import TRAPS
from tests.unit.check.sample import sample

_DEBUG = (
    "superblock IMAGE", "inode IMAGE 1", "inode IMAGE 8", "inode IMAGE 21", "inode IMAGE /big", "directory IMAGE /big",
    "directory IMAGE /dir/sub", "extents IMAGE /files/tree", "extents IMAGE 2", "extents IMAGE 3", "journal IMAGE",
    "journal --json IMAGE", "orphans IMAGE", "bisect IMAGE",
)  # fmt: skip
_COMMANDS = ("fsck -n IMAGE", *(f"debug {words}" for words in _DEBUG))


@pytest.fixture(params=TRAPS)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    image = sample()
    TRAPS[request.param](image)
    path = tmp_path / "hostile"
    path.write_bytes(image.device.snapshot())
    return path


def assert_no_crash(done: Ended) -> None:
    assert "Traceback" not in done.output, done.output
    assert "internal error" not in done.output, done.output
    assert done.code == 0, done


def test_tools_and_repair(hostile: Path, command: Command) -> None:
    assert_no_crash(run(commands, str(hostile), *_COMMANDS, UNCHANGED, "fsck -p -f IMAGE", "fsck -y IMAGE"))
    outcome = command("fsck", "-n", hostile)
    assert outcome.code == 0, outcome.out


def test_the_filesystem_itself(hostile: Path) -> None:
    """As a mount would work on it, without the kernel."""
    assert_no_crash(run(use, str(hostile)))


def test_an_inode_table_over_a_large_sparse_image(tmp_path: Path, command: Command) -> None:
    """One extent that calls everything free inodes: half a million chunks, 32 million inodes."""
    path = tmp_path / "large"
    assert command("mkfs", "-q", "-b", "1K", "--journal-size", "1M", path, "--size", "16G").code == 0
    device = FileDevice.open(str(path), writable=True)
    superblock = load_superblock(device)
    fmt = superblock.format
    address = superblock.inode_root + INODE_FILE_INO // fmt.inodes_per_block
    at = address * fmt.block_size + INODE_FILE_INO % fmt.inodes_per_block * INODE_BYTES
    inode = Inode.decode(fmt, address, device.read(at, INODE_BYTES))
    first = superblock.inode_root + fmt.chunk_blocks
    length = superblock.blocks - first
    everything = ((1 + fmt.chunk_blocks), EXTENT.pack(first, length, 0))
    inode.set_entries(FORM_EXTENTS, (*inode.entries, everything))
    inode.blocks += length
    device.write(at, inode.encode(fmt, address))
    device.close()
    assert_no_crash(run(commands, str(path), "fsck -n IMAGE", "debug inode IMAGE 1", "debug directory IMAGE /"))
    assert_no_crash(run(commands, str(path), "fsck -y IMAGE"))
    assert command("fsck", "-n", path).code == 0


@pytest.mark.mounted
@pytest.mark.parametrize(
    "name",
    [
        "leaves_in_a_cycle_of_keys", "directories_inside_each_other", "everybody_claims_everything",
        "sizes_beyond_everything", "orphan_slots_that_name_what_is_in_use", "a_record_full_of_ones",
    ],
)  # fmt: skip
def test_a_mount(name: str, tmp_path: Path, directory: Path, program: Command) -> None:
    """Through the kernel: everything is looked at and deleted, and the mount can be taken down."""
    image = sample()
    TRAPS[name](image)
    path, log = tmp_path / "hostile", tmp_path / "log"
    path.write_bytes(image.device.snapshot())
    assert program("mount", "-o", f"log={log}", path, directory).code == 0
    try:
        for words in (["find", "."], ["grep", "-r", "no such words", "."], ["rm", "-rf", "--", "dir", "big", "files"]):
            subprocess.run(words, cwd=directory, capture_output=True, timeout=WALL_SECONDS, check=False)
        assert os.stat(directory).st_ino == 1
    finally:
        assert program("umount", directory).code == 0
    assert "Traceback" not in log.read_text()
