"""An image without superblocks: what mount, fsck and debug say of it, and the way back."""

import json
import time
from pathlib import Path

from deferfs.device import FileDevice
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from tests.cli.conftest import Command, is_one_line
from tests.cli.unclean import leave_unclean


def lose_the_beginning(image: Path) -> None:
    with image.open("r+b") as file:
        file.write(bytes(68 << 10))


def spares_of(image: Path, command: Command) -> list[int]:
    found = json.loads(command("debug", "superblock", "--json", image).out)
    assert all(spare["whole"] for spare in found["spares"])
    return [spare["offset"] for spare in found["spares"]]


def test_a_mount_is_refused_and_names_the_way_back(image: Path, directory: Path, command: Command) -> None:
    lose_the_beginning(image)
    for options in ([], ["-o", "ro"]):
        outcome = command("mount", *options, image, directory)
        assert outcome.code
        assert is_one_line(outcome.err)
        assert "deferfs fsck -y" in outcome.err


def test_fsck_restores_both(image: Path, command: Command) -> None:
    leave_unclean(image)
    spares = spares_of(image, command)
    lose_the_beginning(image)
    assert spares_of(image, command) == spares
    before = image.read_bytes()
    for options in (["-n"], ["-p"], []):
        outcome = command("fsck", *options, image)
        assert (outcome.code, outcome.err.count("\n")) == (4, options == ["-p"])
        assert f"{image}: [106] " in outcome.out
    assert image.read_bytes() == before
    outcome = command("fsck", "-y", image)
    assert outcome.code == 1
    assert f"both copies written from the spare one at byte {spares[0]}\n" in outcome.out
    assert "kept" in command("debug", "directory", image, "/").out
    assert command("fsck", "-n", image).code == 0
    assert command("info", image).out.splitlines()[-1] == "state    clean"
    assert spares_of(image, command) == spares


def test_the_spare_that_is_named(image: Path, command: Command) -> None:
    last = spares_of(image, command)[-1]
    lose_the_beginning(image)
    outcome = command("fsck", "-y", "-b", last, image)
    assert outcome.code == 1
    assert f"at byte {last}" in outcome.out
    assert command("fsck", "-n", image).code == 0
    outcome = command("fsck", "-n", "-b", "64K", image)
    assert outcome.code == 8
    assert is_one_line(outcome.err)
    assert command("fsck", "-n", "--at", "1", "-b", last, image).code == 16


def test_damaged_spares_are_written_again(image: Path, command: Command) -> None:
    first = spares_of(image, command)[0]
    with image.open("r+b") as file:
        file.seek(first)
        file.write(bytes(100))
    assert f"spare at byte {first}: damaged" in command("debug", "superblock", image).out
    outcome = command("fsck", "-n", image)
    assert (outcome.code, outcome.out.count("[107]")) == (4, 1)
    assert command("fsck", "-y", image).code == 1
    assert first in spares_of(image, command)


def test_a_new_filesystem_leaves_no_spare_of_the_old_one(image: Path, command: Command) -> None:
    assert spares_of(image, command)
    assert command("mkfs", "-q", "-f", "--size", "4M", image).code == 0
    with image.open("r+b") as file:
        file.write(bytes(68 << 10))
    assert "no superblock found" in command("fsck", "-n", image).err


def test_an_image_of_an_older_program_gets_them(image: Path, command: Command) -> None:
    """Only from -y, in words, and it is no repair."""
    from tests.unit.check.image import Image

    device = FileDevice.open(str(image), writable=True)
    old = Image(device)  # type: ignore[arg-type]
    for address in old.superblock.spares:
        old.mark(address, 1, 0)
    old.change_superblock(spares=(), compatible=0)
    device.close()
    for option in ("-n", "-p"):
        assert command("fsck", option, image).code == 0
        assert spares_of(image, command) == []
    driver = Driver.open(FileDevice.open(str(image), writable=True), clock=time.time_ns, entropy=lambda: 1)
    driver.run(namespace.create, driver.volume, 1, b"kept", NewInode(0o100644))
    driver.close()
    driver.device.close()
    outcome = command("fsck", "-y", image)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{image}: spare superblocks: at byte" in outcome.out
    assert command("fsck", "-n", image).code == 0
    assert len(spares_of(image, command)) > 1
    before = image.read_bytes()
    assert command("fsck", "-y", image).code == 0
    assert image.read_bytes() == before
