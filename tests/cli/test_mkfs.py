"""`deferfs mkfs`."""

import json
import os
from pathlib import Path

import pytest

from deferfs.ondisk.signatures import identify
from tests.cli.conftest import Command, is_one_line


def test_mkfs_makes_a_sparse_image_and_prints_its_geometry(tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image"
    outcome = command("mkfs", image, "--size", "64M", "-L", "data", "-U", "12345678" * 4)
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.splitlines() == [
        f"image    path={image}",
        "         uuid=12345678-1234-5678-1234-567812345678 label=data",
        "data     block_size=4096 blocks=16384 size=67108864",
        "journal  start=18 blocks=1024 size=4194304",
        "features compatible=0x1 read_only_compatible=0x0 incompatible=0x1",
        "state    clean",
    ]
    status = image.stat()
    assert status.st_size == 64 << 20
    assert status.st_blocks * 512 < 8 << 20
    assert command("fsck", "-n", image).code == 0


@pytest.mark.parametrize("block_size", ["1K", "2K", "4K", "16K", "64K"])
def test_every_block_size_checks_clean(block_size: str, tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image"
    assert command("mkfs", image, "--size", "64M", "-b", block_size).code == 0
    assert command("fsck", "-n", image).code == 0


def test_an_existing_file_gives_the_size(tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 32 << 20)
    outcome = command("mkfs", "--json", image)
    assert json.loads(outcome.out)["size_bytes"] == 32 << 20


def test_an_existing_file_can_be_given_another_size(tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image"
    image.touch()
    assert command("mkfs", "-q", image, "--size", "32M").code == 0
    assert image.stat().st_size == 32 << 20


def test_a_dry_run_prints_the_same_and_changes_nothing(tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image"
    uuid = "12345678" * 4
    planned = command("mkfs", "-N", image, "--size", "64M", "-U", uuid)
    assert planned.code == 0
    assert not image.exists()
    made = command("mkfs", image, "--size", "64M", "-U", uuid)
    assert made.out == planned.out
    before = image.read_bytes()
    assert command("mkfs", "-N", image).code == 0
    assert image.read_bytes() == before


def test_force_overwrites(image: Path, command: Command) -> None:
    refused = command("mkfs", image)
    assert refused.code == 1
    assert "already contains a deferfs filesystem; -f overwrites it" in refused.err
    assert command("mkfs", "-q", "-f", image).code == 0
    assert command("fsck", "-n", image).code == 0


@pytest.mark.parametrize(
    ("offset", "content", "name"),
    [
        (0x438, b"\x53\xef", "an ext2, ext3 or ext4 filesystem"),
        (0, b"XFSB", "an XFS filesystem"),
        (0x10040, b"_BHRfS_M", "a btrfs filesystem"),
        (512, b"EFI PART", "a partition table"),
        (70_000, b"x", "data of an unknown kind"),
    ],
)
def test_mkfs_names_and_keeps_what_is_there(
    offset: int, content: bytes, name: str, tmp_path: Path, command: Command
) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
        file.seek(offset)
        file.write(content)
    before = image.read_bytes()
    outcome = command("mkfs", image)
    assert outcome.code == 1
    assert outcome.err == f"deferfs: {image}: already contains {name}; -f overwrites it\n"
    assert image.read_bytes() == before


def test_an_empty_head_is_nothing() -> None:
    assert identify(bytes(1 << 17)) is None
    assert identify(b"") is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "does not exist; give --size to make it"),
        (["--size", "1M"], 2, "size too small"),
        (["--size", "0"], 2, "size too small"),
        (["--size", "big"], 2, "'big' is not a size"),
        (["--size", "64M", "-b", "3000"], 2, "block size must be a power of two"),
        (["--size", "64M", "-b", "512"], 2, "block size must be a power of two"),
        (["--size", "64M", "-b", "128K"], 2, "block size must be a power of two"),
        (["--size", "64M", "--journal-size", "4K"], 2, "journal must have at least"),
        (["--size", "64M", "--journal-size", "64M"], 2, "size too small"),
        (["--size", "64M", "--journal-size", "2G"], 2, "journal must have at most 1073741824 bytes"),
        (["--size", "64M", "-L", "x" * 33], 2, "label is longer than 32 bytes"),
        (["--size", "64M", "-U", "nonsense"], 2, "'nonsense' is not a UUID"),
    ],
)
def test_a_failed_mkfs_leaves_no_file(
    arguments: list[str], code: int, message: str, tmp_path: Path, command: Command
) -> None:
    image = tmp_path / "image"
    outcome = command("mkfs", image, *arguments)
    assert outcome.code == code
    assert message in outcome.err
    assert is_one_line(outcome.err)
    assert not image.exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (".", "is a directory"),
        ("missing/image", "No such file or directory"),
    ],
)
def test_a_place_where_no_image_can_be(path: str, message: str, tmp_path: Path, command: Command) -> None:
    outcome = command("mkfs", tmp_path / path, "--size", "64M")
    assert outcome.code == 1
    assert message in outcome.err
    assert is_one_line(outcome.err)


def test_mkfs_deferfs_is_a_program_of_its_own(tmp_path: Path, program: Command) -> None:
    outcome = program(tmp_path / "image", "--size", "64M", entry="mkfs_main")
    assert outcome.code == 0
    assert program("-x", entry="mkfs_main").code == 2


@pytest.mark.mounted
def test_a_mounted_image_is_refused(mounted: Path, image: Path, program: Command) -> None:
    outcome = program("mkfs", "-f", image)
    assert outcome.code == 1
    assert outcome.err == (f"deferfs: {image}: is mounted on {mounted}; unmount it first: deferfs umount {mounted}\n")
