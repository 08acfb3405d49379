"""`deferfs fsck`: exit codes and what it may change. What it finds is the matter of tests/unit/check."""

import json
import time
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from tests.cli.conftest import Command, is_one_line


def leave_unclean(image: Path) -> None:
    """As after a crash: a committed file and a deleted one, only in the log and the orphan table."""
    driver = Driver.open(FileDevice.open(str(image), writable=True), clock=time.time_ns, entropy=lambda: 1)
    volume = driver.volume
    for name in (b"kept", b"deleted"):
        driver.run(namespace.create, volume, 1, name, 0o100644, 0, 0)
    driver.run(namespace.unlink, volume, 1, b"deleted")
    driver.commit()
    driver.device.close()


def damage_bitmap(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(17 * 4096 + 100)
        file.write(b"damage")


def test_a_clean_image(image: Path, command: Command) -> None:
    before = image.read_bytes()
    for options in (["-n"], [], ["-n", "-f"], ["-p"], ["-a"], ["-y"], ["-p", "-f"], ["-C0", "-a"]):
        outcome = command("fsck", *options, image)
        assert outcome.code == 0
        assert outcome.err == ""
        assert outcome.out.startswith(f"{image}: clean")
    assert image.read_bytes() == before


def test_preen_does_not_read_a_clean_image(image: Path, command: Command) -> None:
    assert command("fsck", "-p", image).out == f"{image}: clean; not checked (-f checks everything)\n"


def test_looking_does_not_recover(image: Path, command: Command) -> None:
    leave_unclean(image)
    before = image.read_bytes()
    outcome = command("fsck", "-n", "-v", image)
    assert outcome.code == 0
    assert "1 orphans" in outcome.out
    assert "transactions to replay" in outcome.out
    assert image.read_bytes() == before


@pytest.mark.parametrize("option", ["-p", "-y"])
def test_recovery_is_no_repair(option: str, image: Path, command: Command) -> None:
    leave_unclean(image)
    outcome = command("fsck", option, "-v", image)
    assert outcome.code == 0
    assert f"{image}: recovered\n" in outcome.out
    assert "0 orphans" in outcome.out
    assert command("info", image).out.splitlines()[-1] == "state    clean"


def test_problems_are_numbered_and_left(image: Path, command: Command) -> None:
    damage_bitmap(image)
    for options in (["-n"], ["-p", "-f"], ["-y"]):
        outcome = command("fsck", *options, image)
        assert outcome.code == 4
        assert f"{image}: [301] " in outcome.out
        repair = "cannot repair" in outcome.err
        assert repair is (options != ["-n"])


def test_json(image: Path, command: Command) -> None:
    found = json.loads(command("fsck", "-n", "--json", image).out)
    assert found["clean"]
    assert found["exit_code"] == 0
    assert found["counts"]["directories"] == 1
    damage_bitmap(image)
    outcome = command("fsck", "-n", "--json", image)
    found = json.loads(outcome.out)
    assert not found["clean"]
    assert found["exit_code"] == outcome.code == 4
    assert found["problems"][0]["number"] == 301
    assert not json.loads(command("fsck", "-p", "--json", image).out)["checked"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-n", "-y", "image"], 16, "only one of -n, -p (or -a) and -y can be given"),
        (["-z", "image"], 16, "no such option"),
        (["-n"], 16, "missing argument"),
        (["-n", "none"], 8, "No such file or directory"),
        (["-n", "."], 8, "is a directory"),
        (["-n", "text"], 8, "not a deferfs image"),
    ],
)
def test_what_cannot_be_checked(
    arguments: list[str],
    code: int,
    message: str,
    image: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(image.parent)
    Path("text").write_text("hello" * 100_000)
    outcome = command("fsck", *arguments)
    assert outcome.code == code
    assert message in outcome.err.lower().replace("no such file", "No such file")
    assert is_one_line(outcome.err)


def test_as_a_program_of_its_own(image: Path, program: Command) -> None:
    assert program("-a", "-C0", image, entry="fsck_main").code == 0
    assert program(entry="fsck_main").code == 16


@pytest.mark.mounted
def test_a_mounted_image_is_refused(mounted: Path, image: Path, program: Command) -> None:
    for option in ("-n", "-p", "-y"):
        outcome = program("fsck", option, image)
        assert outcome.code == 8
        assert f"{image}: is mounted on {mounted}" in outcome.err
        assert is_one_line(outcome.err)
