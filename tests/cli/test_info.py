"""`deferfs info`."""

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command, environment_of_the_program, is_one_line
from tests.cli.daemons import wait_for_end


def test_info_prints_what_mkfs_has_printed(tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image"
    made = command("mkfs", image, "--size", "64M")
    assert command("info", image) == made


def test_json(tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image"
    made = json.loads(command("mkfs", "--json", image, "--size", "64M").out)
    found = json.loads(command("info", "--json", image).out)
    assert found["mountpoint"] is None
    assert {key: found[key] for key in made if key != "written_ns"} == {
        key: made[key] for key in made if key != "written_ns"
    }


def damage(image: Path, offset: int, content: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_one_damaged_superblock_is_no_harm(image: Path, command: Command) -> None:
    damage(image, 0, b"x" * 512)
    assert command("info", image).code == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 512, "not a deferfs image"),
        (b"xxxx", "superblock has a wrong checksum"),
    ],
)
def test_info_of_an_image_without_a_superblock(content: bytes, message: str, image: Path, command: Command) -> None:
    damage(image, 0, content)
    damage(image, 65_536, content)
    assert "fsck -y" in command("info", image).err
    for spare in json.loads(command("debug", "superblock", "--json", image).out)["spares"]:
        damage(image, spare["offset"], bytes(4))
    outcome = command("info", image)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.startswith(f"deferfs: {image}: ")
    assert is_one_line(outcome.err)


def test_a_truncated_image(image: Path, command: Command) -> None:
    with image.open("r+b") as file:
        file.truncate(8 << 20)
    outcome = command("info", image)
    assert outcome.code == 1
    assert "image is truncated: 8388608 bytes of 16777216" in outcome.err
    assert is_one_line(outcome.err)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "No such file or directory"), (".", "is a directory"), ("empty", "not a deferfs")],
)
def test_info_of_what_is_no_image(name: str, message: str, tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").touch()
    outcome = command("info", tmp_path / name)
    assert outcome.code == 1
    assert message in outcome.err
    assert is_one_line(outcome.err)


def test_a_name_that_is_not_utf8(tmp_path: Path, command: Command) -> None:
    image = tmp_path / "image-\udcff"
    assert command("mkfs", "-q", image, "--size", "16M").code == 0
    found = json.loads(command("info", "--json", image).out)
    assert found["image"].endswith("image-?")
    assert base64.b64decode(found["image_base64"]).endswith(b"image-\xff")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deferfs", "info", image],
        capture_output=True,
        check=True,
        env=environment_of_the_program(),
    )
    assert done.stdout.splitlines()[0].endswith(rb"image-\xff")


@pytest.mark.mounted
def test_info_of_a_mount(mounted: Path, image: Path, program: Command) -> None:
    by_directory = program("info", mounted)
    assert by_directory.code == 0
    assert by_directory.out.splitlines()[0] == f"image    path={image}"
    assert by_directory.out.splitlines()[-1] == "state    mounted"
    assert program("info", image) == by_directory
    assert json.loads(program("info", "--json", mounted).out)["mountpoint"] == str(mounted)


@pytest.mark.mounted
def test_info_of_a_mount_whose_daemon_has_died(mounted: Path, image: Path, program: Command) -> None:
    pid = json.loads(program("stat", "--json", mounted).out)["pid"]
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for_end(process)
    said = f"state    dead: its daemon has died; deferfs umount {mounted} detaches the mount"
    for target in (mounted, image):
        assert program("info", target).out.splitlines()[-1] == said
        assert json.loads(program("info", "--json", target).out)["state"] == "dead"
    assert program("umount", mounted).code == 0
    assert program("info", image).out.splitlines()[-1] == "state    unclean"
