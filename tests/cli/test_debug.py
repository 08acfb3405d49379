"""`deferfs debug`, and the past: `--at`, `mount -o at=`."""

import json
import stat
import time
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from deferfs.ondisk.inode import ROOT_INO
from deferfs.volume import namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import Credentials, NewInode
from tests.cli.conftest import Command, is_one_line


def open_image(image: Path) -> Driver:
    return Driver.open(FileDevice.open(str(image), writable=True), clock=time.time_ns, entropy=lambda: 1)


@pytest.fixture
def past(image: Path) -> Path:
    """A crashed image with transactions 1 to 3 in its log: a file and a directory; a name gone; an orphan."""
    driver = open_image(image)
    volume = driver.volume
    directory = driver.run(namespace.create, volume, ROOT_INO, b"directory", NewInode(stat.S_IFDIR | 0o755)).ino
    for number in range(120):
        driver.run(namespace.create, volume, directory, b"file %d" % number, NewInode(stat.S_IFREG | 0o644))
    owned = NewInode(stat.S_IFREG | 0o640, Credentials(7, 8))
    ino = driver.run(namespace.create, volume, ROOT_INO, b"data\xff", owned).ino
    driver.write(ino, 0, b"x" * 20_000)
    driver.write(ino, 1 << 20, b"y")
    driver.run(xattrs.setxattr, volume, ino, b"user.colour", b"red")
    driver.commit()
    driver.run(namespace.unlink, volume, directory, b"file 3")
    driver.collect()
    driver.commit()
    driver.run(namespace.unlink, volume, directory, b"file 4")
    driver.commit()
    driver.device.close()
    return image


def test_superblock(image: Path, command: Command) -> None:
    out = command("debug", "superblock", image).out
    assert out.count("copy at byte") == 2
    assert out.count("the one that counts") == 1
    found = json.loads(command("debug", "superblock", "--json", image).out)
    assert [copy["offset"] for copy in found["copies"]] == [0, 65536]
    assert sorted(copy["counts"] for copy in found["copies"]) == [False, True]
    assert found["copies"][0]["fields"]["block_size"] == 4096
    with image.open("r+b") as file:
        file.write(bytes(512))
    outcome = command("debug", "superblock", image)
    assert outcome.code == 0
    assert "copy at byte 0: not a deferfs image" in outcome.out
    image.write_bytes(bytes(1 << 20))
    for words in ([], ["--json"]):
        outcome = command("debug", "superblock", *words, image)
        assert (outcome.code, outcome.out.count("not a deferfs image")) == (1, 2)


def test_inode(past: Path, command: Command) -> None:
    found = json.loads(command("debug", "inode", "--json", past, "/data\udcff").out)
    assert (found["uid"], found["gid"], found["size"], found["nlink"]) == (7, 8, (1 << 20) + 1, 1)
    assert found["xattrs"][0]["name"] == "user.colour"
    text = command("debug", "inode", past, found["ino"]).out
    assert text.startswith(
        f"inode {found['ino']}: file, 1048577 bytes, in block {found['block']}, record {found['index']}\n"
    )
    assert "xattr        user.colour: 3 bytes" in text


def test_directory_and_extents(past: Path, command: Command) -> None:
    rows = [json.loads(line) for line in command("debug", "directory", "--json", past, "/directory").out.splitlines()]
    assert len(rows) == 118
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert command("debug", "directory", past, "/directory").out.splitlines()[-1].endswith("118 entries")
    found = json.loads(command("debug", "extents", "--json", past, "/data\udcff").out)
    assert [(e["logical"], e["length"]) for e in found["extents"]] == [(0, 5), (256, 1)]
    assert "hole        251" in command("debug", "extents", past, "/data\udcff").out


def test_journal(past: Path, command: Command) -> None:
    found = json.loads(command("debug", "journal", "--json", past).out)
    assert [transaction["tid"] for transaction in found["transactions"]] == [1, 2, 3]
    assert found["end"] == "whole"
    kinds = {image["kind"] for transaction in found["transactions"] for image in transaction["images"]}
    assert {"bitmap", "inodes", "directory node"} <= kinds
    assert found["used"] == sum(transaction["blocks"] for transaction in found["transactions"])
    text = command("debug", "journal", "-v", past).out
    assert "tid 2: " in text
    assert f"image  {found['transactions'][0]['images'][0]['home']:12}" in text


def test_orphans(past: Path, command: Command) -> None:
    (row,) = (json.loads(line) for line in command("debug", "orphans", "--json", past).out.splitlines())
    assert command("debug", "orphans", past).out.splitlines()[-1] == "1 orphan"
    assert f"inode {row['ino']}: file, 0 bytes" in command("debug", "orphans", past).out
    assert command("debug", "orphans", "--at", "2", past).out == "0 orphans\n"


def test_damaged_structures_are_shown(past: Path, command: Command) -> None:
    """A record with a wrong checksum as it is there, and what is left of the orphan table; each with its number."""
    driver = open_image(past)
    ino = driver.run(namespace.lookup, driver.volume, ROOT_INO, b"data\xff").ino
    driver.run(namespace.unlink, driver.volume, ROOT_INO, b"data\xff")
    driver.commit()
    driver.checkpoint()
    driver.device.close()
    record = json.loads(command("debug", "inode", "--json", past, ino).out)
    (extent,) = json.loads(command("debug", "extents", "--json", past, 3).out)["extents"]
    with past.open("r+b") as file:
        file.seek(record["block"] * 4096 + record["index"] * 512 + 24)
        file.write(b"1234")
        file.seek(extent["physical"] * 4096 + 1000)
        file.write(b"damage")
    outcome = command("debug", "inode", "--json", past, ino)
    assert outcome.code == 0
    assert json.loads(outcome.out)["uid"] == int.from_bytes(b"1234", "little")
    assert f"[410] inode {ino}: wrong checksum in block {record['block']}" in outcome.err
    outcome = command("debug", "orphans", past)
    assert (outcome.code, outcome.out) == (0, "0 orphans\n")
    assert "[902] orphan file: block" in outcome.err


def test_the_past(past: Path, command: Command) -> None:
    before = past.read_bytes()
    counts = [command("debug", "directory", past, "/directory", "--at", tid).out.splitlines()[-1] for tid in (1, 2, 3)]
    assert [line.split()[-2] for line in counts] == ["120", "119", "118"]
    outcome = command("fsck", "-n", "--at", 1, "-v", past)
    assert outcome.code == 0
    assert "0 orphans" in outcome.out
    assert json.loads(command("fsck", "--json", "--at", 0, past).out)["counts"]["inodes"] == 1
    outcome = command("fsck", "-n", "--at", 9, past)
    assert outcome.code == 8
    assert "transaction 9 is not in the log, which holds transactions 1 to 3" in outcome.err
    assert is_one_line(outcome.err)
    assert command("fsck", "-y", "--at", 1, past).code == 16
    assert past.read_bytes() == before


def plant(image: Path) -> None:
    """A transaction that a faulty program might commit: a directory entry whose type is wrong, with all checksums
    right.
    """
    driver = open_image(image)
    volume = driver.volume

    def name(text: bytes) -> None:
        driver.run(namespace.create, volume, ROOT_INO, text, NewInode(stat.S_IFREG | 0o644))
        driver.commit()

    for number in range(5):
        name(b"before %d" % number)
    driver.run(lambda plan: setattr(volume.store.inodes.modify(plan, ROOT_INO), "size", 77))
    driver.commit()
    for number in range(5):
        name(b"after %d" % number)
    driver.device.close()


def test_bisect(image: Path, command: Command) -> None:
    plant(image)
    outcome = command("debug", "bisect", image)
    assert outcome.code == 4
    assert f"{image}: first bad transaction: 6 (after 5 nothing is wrong)" in outcome.out
    assert "[710] directory 1: counts 77 entries, has 5" in outcome.out
    found = json.loads(command("debug", "bisect", "--json", image).out)
    assert (found["last_good"], found["first_bad"]) == (5, 6)
    assert found["problems"][0]["code"] == "directory-size"
    assert found["homes"]


def test_bisect_of_what_was_bad_before_the_log_begins(image: Path, command: Command) -> None:
    driver = open_image(image)
    directory = driver.run(namespace.create, driver.volume, ROOT_INO, b"large", NewInode(stat.S_IFDIR | 0o755)).ino
    for number in range(300):
        driver.run(namespace.create, driver.volume, directory, b"file %d" % number, NewInode(stat.S_IFREG | 0o644))
    driver.close()
    driver.device.close()
    root = json.loads(command("debug", "inode", "--json", image, "/large").out)["root"]
    plant(image)
    with image.open("r+b") as file:
        file.seek(root * 4096 + 100)
        file.write(b"damage")
    outcome = command("debug", "bisect", "--json", image)
    found = json.loads(outcome.out)
    assert outcome.code == 4
    assert (found["last_good"], found["first_bad"]) == (None, found["oldest"])
    assert "the oldest that can be reconstructed, there are problems" in command("debug", "bisect", image).out


def test_bisect_finds_nothing_in_a_sound_image(past: Path, command: Command) -> None:
    outcome = command("debug", "bisect", past)
    assert outcome.code == 0
    assert "nothing is wrong after the newest one" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inode", "IMAGE", "/none"], "/none: no such name in directory 1"),
        (["inode", "IMAGE", "99999999"], "does not exist: its chunk of the inode table is not mapped"),
        (["inode", "IMAGE", "99999999999999999999999"], "does not exist: its chunk of the inode table is not mapped"),
        (["directory", "IMAGE", "/data\udcff"], "is not a directory"),
        (["directory", "IMAGE", "/data\udcff/below"], "is not a directory"),
        (["journal", "none"], "No such file"),
        (["orphans", "IMAGE", "--at", "77"], "transaction 77 is not in the log"),
        (["orphans", "IMAGE", "--at", "-5"], "transaction -5 is not in the log"),
    ],
)
def test_mistakes(arguments: list[str], message: str, past: Path, command: Command) -> None:
    outcome = command("debug", *(str(past) if word == "IMAGE" else word for word in arguments))
    assert outcome.code == 1
    assert message in outcome.err
    assert is_one_line(outcome.err)


def test_help_and_usage(command: Command) -> None:
    assert command("debug").code == 0
    for tool in ("superblock", "inode", "directory", "extents", "journal", "orphans", "bisect"):
        assert tool in command("debug").out
    outcome = command("debug", "none")
    assert outcome.code == 2
    assert is_one_line(outcome.err)


@pytest.mark.mounted
def test_mounting_the_past(past: Path, directory: Path, program: Command) -> None:
    before = past.read_bytes()
    assert program("mount", "-o", "ro,at=1", past, directory).code == 0
    try:
        assert len(list((directory / "directory").iterdir())) == 120
        assert (directory / "directory" / "file 3").exists()
        with pytest.raises(OSError, match="Read-only"):
            (directory / "new").touch()
    finally:
        assert program("umount", directory).code == 0
    assert past.read_bytes() == before
    outcome = program("mount", "-o", "at=1", past, directory)
    assert outcome.code == 1
    assert "requires ro" in outcome.err
    outcome = program("mount", "-o", "ro,at=8", past, directory)
    assert outcome.code == 32
    assert "transaction 8 is not in the log" in outcome.err
