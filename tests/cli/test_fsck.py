"""`deferfs fsck`: exit codes and what it may change. What it finds is the matter of tests/unit/check."""

import json
import os
import pty
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from deferfs.check import check_image
from deferfs.check.repair import mark
from deferfs.cli import check_run
from deferfs.device import FileDevice
from deferfs.mount.daemon.image import load_superblock
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.node import DirectoryNode
from deferfs.ondisk.superblock import newest
from deferfs.store.io import run_job
from deferfs.store.mkfs import make_filesystem, plan_geometry
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from tests.cli.conftest import Command, Outcome, environment_of_the_program, is_one_line
from tests.cli.unclean import leave_unclean


def damage_bitmap(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(17 * 4096 + 100)
        file.write(b"damage")


def test_a_clean_image(image: Path, command: Command) -> None:
    before = image.read_bytes()
    for options in (["-n"], [], ["-n", "-f"], ["-p"], ["-a"], ["-y"], ["-y", "-D"], ["-p", "-f"], ["-C0", "-a"]):
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
    assert "1 orphan" in outcome.out
    assert "1 transaction to replay" in outcome.out
    assert image.read_bytes() == before


@pytest.mark.parametrize("option", ["-p", "-y"])
def test_recovery_is_no_repair(option: str, image: Path, command: Command) -> None:
    leave_unclean(image)
    outcome = command("fsck", option, "-v", image)
    assert outcome.code == 0
    assert f"{image}: recovered\n" in outcome.out
    assert "0 orphans" in outcome.out
    assert command("info", image).out.splitlines()[-1] == "state    clean"


def test_nothing_is_recovered_where_there_is_nothing_to_do(image: Path, command: Command) -> None:
    """Left open, but with an empty log and no orphans."""
    with image.open("r+b") as file:
        found = newest([os.pread(file.fileno(), SUPERBLOCK_BYTES, offset) for offset in SUPERBLOCK_OFFSETS])
        for _ in SUPERBLOCK_OFFSETS:
            found = found.next(state=0)
            os.pwrite(file.fileno(), found.encode(), SUPERBLOCK_OFFSETS[found.sequence % 2])
    outcome = command("fsck", "-y", image)
    assert outcome.code == 0
    assert f"{image}: recovered\n" not in outcome.out
    assert command("info", image).out.splitlines()[-1] == "state    clean"


def test_problems_are_numbered_and_left_when_only_looked_at(image: Path, command: Command) -> None:
    damage_bitmap(image)
    before = image.read_bytes()
    for options in (["-n"], []):
        outcome = command("fsck", *options, image)
        assert outcome.code == 4
        assert f"{image}: [301] " in outcome.out
        assert outcome.err == ""
    assert image.read_bytes() == before


def test_preening_repairs_what_needs_no_decision(image: Path, command: Command) -> None:
    """A bitmap is rebuilt, and a wrong bit corrected; at boot, that needs no operator."""
    leave_unclean(image)
    assert command("fsck", "-p", image).code == 0
    record = json.loads(command("debug", "inode", "--json", image, "/kept").out)
    damage_bitmap(image)
    with image.open("r+b") as file:
        file.seek(record["block"] * 4096 + record["index"] * 512 + 24)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 8]))
    outcome = command("fsck", "-p", "-f", image)
    assert outcome.code == 1
    assert "inode 8: one bit of its record was wrong, and is corrected" in outcome.out
    assert json.loads(command("debug", "inode", "--json", image, "/kept").out) == record
    assert command("fsck", "-n", image).code == 0


def test_preening_makes_bitmaps_anew(image: Path, command: Command) -> None:
    damage_bitmap(image)
    assert command("fsck", "-p", "-f", image).code == 1
    assert command("fsck", "-n", image).code == 0


def test_preening_leaves_what_needs_a_decision(image: Path, command: Command) -> None:
    leave_unclean(image)
    assert command("fsck", "-p", image).code == 0
    garbage_over_the_record(image, command, "/kept")
    before = image.read_bytes()
    outcome = command("fsck", "-p", "-f", image)
    assert outcome.code == 4
    assert "nothing was changed; fsck -y repairs it" in outcome.err
    assert image.read_bytes() == before


def test_repair(image: Path, command: Command) -> None:
    damage_bitmap(image)
    outcome = command("fsck", "-y", image)
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"{image}: [301] ")
    assert f"{image}: repaired" in lines
    assert lines[-1].startswith(f"{image}: clean, 1 inode, ")
    assert command("fsck", "-y", image).code == 0
    assert command("fsck", "-n", image).code == 0
    assert command("info", image).out.splitlines()[-1] == "state    clean"


def test_exit_codes_add_up(image: Path) -> None:
    damage_bitmap(image)
    device = FileDevice.open(str(image), writable=False)
    report = check_image(device)
    device.close()
    codes = [check_run.Outcome(report, report, fixed=fixed).code for fixed in (False, True)]
    assert codes == [4, 5]


def test_lost_files_are_found(image: Path, command: Command) -> None:
    """The leaf of a large directory is lost: what it named is in lost+found afterwards."""
    driver = Driver.open(FileDevice.open(str(image), writable=True), clock=time.time_ns, entropy=lambda: 1)
    volume = driver.volume
    directory = driver.run(namespace.create, volume, 1, b"large", NewInode(0o040755)).ino
    for number in range(400):
        driver.run(namespace.create, volume, directory, b"file %d" % number, NewInode(0o100644))
    record = driver.run(lambda plan: volume.store.inodes.get(plan, directory))
    leaf = driver.run(lambda plan: plan.get(record.root, DirectoryNode)).children[1]
    driver.close()
    driver.device.close()
    with image.open("r+b") as file:
        file.seek(leaf * 4096)
        file.write(b"damage" * 600)
    outcome = command("fsck", "-y", image)
    assert outcome.code == 1
    found = outcome.out.count("now /lost+found/#")
    assert 50 < found < 400
    after = Driver.open(
        FileDevice.open(str(image), writable=False), clock=time.time_ns, entropy=lambda: 1, read_only=True
    )
    home = after.run(namespace.lookup, after.volume, 1, b"lost+found").ino
    assert after.run(lambda plan: len(list(namespace.readdir(plan, after.volume, home, 2)))) == found
    assert after.run(lambda plan: len(list(namespace.readdir(plan, after.volume, directory, 2)))) == 400 - found
    after.device.close()


def test_preening_mends_a_lost_superblock(image: Path, command: Command) -> None:
    with image.open("r+b") as file:
        file.seek(65536 + 100)
        file.write(b"damage")
    assert (
        command("fsck", "-p", image).code == 1
    )  # what was left clean is not looked at, but this one may not have been
    assert command("fsck", "-n", image).code == 0
    assert command("fsck", "-p", image).out.endswith("not checked (-f checks everything)\n")


@pytest.mark.parametrize("option", ["-p", "-y"])
def test_a_log_that_only_a_lost_superblock_knew_of_is_replayed(option: str, image: Path, command: Command) -> None:
    """The first superblock of a mount is lost: the other one says that the image was left clean, before that mount."""
    leave_unclean(image)
    device = FileDevice.open(str(image), writable=True)
    superblock = load_superblock(device)
    device.write(SUPERBLOCK_OFFSETS[superblock.sequence % 2], b"damage" * 80)
    device.close()
    looked = command("fsck", "-n", image)
    assert looked.code == 4
    assert "[101]" in looked.out
    assert "[203]" not in looked.out
    assert command("fsck", option, image).code == 1
    assert "kept" in command("debug", "directory", image, "/").out
    assert command("fsck", "-n", image).code == 0


def garbage_over_the_record(image: Path, command: Command, what: str) -> None:
    record = json.loads(command("debug", "inode", "--json", image, what).out)
    with image.open("r+b") as file:
        file.seek(record["block"] * 4096 + record["index"] * 512)
        file.write(b"\x55\xaa" * 256)


def test_names_outlive_the_record_of_their_directory(image: Path, command: Command) -> None:
    driver = Driver.open(FileDevice.open(str(image), writable=True), clock=time.time_ns, entropy=lambda: 1)
    for number in range(300):
        driver.run(namespace.create, driver.volume, 1, b"file %d" % number, NewInode(0o100644))
    driver.close()
    driver.device.close()
    garbage_over_the_record(image, command, "/")
    outcome = command("fsck", "-y", image)
    assert outcome.code == 1
    assert "inode 1: its record cannot be read; rebuilt from its tree: a directory of root's" in outcome.out
    assert command("debug", "directory", image, "/").out.splitlines()[-1] == "directory 1: 300 entries"
    assert command("fsck", "-n", image).code == 0


def test_looking_says_what_a_repair_would_do(image: Path, command: Command) -> None:
    leave_unclean(image)
    assert command("fsck", "-p", image).code == 0
    garbage_over_the_record(image, command, "/kept")
    before = image.read_bytes()
    outcome = command("fsck", "-n", "-v", image)
    assert outcome.code == 4
    foreseen = [line for line in outcome.out.splitlines() if "would be done: " in line]
    assert any("'kept' removed: inode 8 is not in use" in line for line in foreseen)
    assert "would be done" not in command("fsck", "-n", image).out
    assert image.read_bytes() == before
    done = command("fsck", "-y", image).out
    for line in foreseen[:-1]:  # the last one stands for all that is not said line by line
        assert line.replace("would be done: ", "") in done


def test_recorded_errors_make_preening_look(image: Path, command: Command) -> None:
    device = FileDevice.open(str(image), writable=True)
    mark(device, 1, clean=False)
    device.close()
    assert command("fsck", "-n", image).code == 4
    outcome = command("fsck", "-p", image)
    assert outcome.code == 1
    assert "[104]" in outcome.out
    assert command("fsck", "-n", image).code == 0


def destroy(image: Path) -> None:
    journal_end = 18 + 256
    with image.open("r+b") as file:
        file.seek(17 * 4096)
        file.write(bytes((journal_end + 200) * 4096))


def test_fsck_does_not_ask_about_an_image_beyond_repair(image: Path) -> None:
    destroy(image)
    code, printed = ask(image, b"y")
    assert code == 4
    assert b"not one inode record" in printed
    assert b"[y/N]" not in printed


def test_an_image_beyond_repair(image: Path, command: Command) -> None:
    destroy(image)
    outcome = command("fsck", "-y", image)
    assert outcome.code == 4
    assert "not one inode record" in outcome.err
    assert is_one_line(outcome.err)


def test_progress_for_programs(image: Path, program: Command, tmp_path: Path) -> None:
    """As e2fsck writes it for fsck(8): pass, done, total, device."""
    with (tmp_path / "progress").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        arguments = ["-n", f"-C{file.fileno()}", str(image)]
        code = "from deferfs.cli.main import fsck_main; fsck_main()"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            pass_fds=[file.fileno()], env=environment_of_the_program(), check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0
    lines = (tmp_path / "progress").read_text().splitlines()
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert all(line.endswith(str(image)) and len(line.split()) == 4 for line in lines)
    assert command_fails_with(program("fsck", "-n", "-Cx", image), 16)


def command_fails_with(outcome: Outcome, code: int) -> bool:
    return outcome.code == code and is_one_line(outcome.err)


def ask(image: Path, answer: bytes) -> tuple[int, bytes]:
    """Run fsck on a terminal and answer its question; (exit code, what it printed)."""
    pid, terminal = pty.fork()
    if pid == 0:
        code = "from deferfs.cli.main import fsck_main; fsck_main()"
        os.execve(sys.executable, [sys.executable, "-P", "-c", code, str(image)], environment_of_the_program())
    printed = b""
    answered = False
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break  # the other end was closed
        printed += data
        if b"? [y/N]" in printed and not answered:
            os.write(terminal, answer + b"\n")
            answered = True
        if not data:
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed


def test_fsck_asks_on_a_terminal(image: Path, command: Command) -> None:
    code, printed = ask(image, b"")
    assert code == 0
    assert printed.startswith(f"{image}: clean, 1 inode, ".encode())
    damage_bitmap(image)
    code, printed = ask(image, b"n")
    assert code == 4
    asked = printed.index(b"repair 1 problem? [y/N]")
    assert 0 < printed.index(b"would be done: ") < asked
    assert b"nothing was changed" in printed
    code, printed = ask(image, b"y")
    assert code == 1
    assert b"repaired" in printed
    assert command("fsck", "-n", image).code == 0


def test_older_directories_are_converted_on_request(image: Path, command: Command) -> None:
    """Also where the log has to be replayed and deletions to be finished."""
    with closing(FileDevice.open(str(image), writable=True)) as device:
        found = newest([device.read(offset, SUPERBLOCK_BYTES) for offset in SUPERBLOCK_OFFSETS])
        geometry = plan_geometry(
            device.size, block_size=found.block_size, uuid=found.uuid, hash_key=found.hash_key, now_ns=1
        )
        run_job(device, make_filesystem(replace(geometry, superblock=replace(geometry.superblock, incompatible=0))))
    leave_unclean(image)
    assert "1 directory with readdir offsets of 63 bits; -y -D gives them 31" in command("fsck", "-n", "-v", image).out
    outcome = command("fsck", "-y", "-D", image)
    assert outcome.code == 1
    assert f"{image}: 1 directory has readdir offsets of 31 bits now\n" in outcome.out
    assert f"{image}: recovered\n" in outcome.out
    assert "incompatible=0x1" in command("info", image).out
    outcome = command("fsck", "-y", "-D", "-v", image)
    assert outcome.code == 0
    assert "readdir offsets" not in outcome.out
    assert "kept" in command("debug", "directory", image, "/").out


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
    assert found["problems"] == found["left"]
    assert not json.loads(command("fsck", "-p", "--json", image).out)["checked"]
    outcome = command("fsck", "-y", "--json", image)
    found = json.loads(outcome.out)
    assert outcome.code == found["exit_code"] == 1
    assert (found["clean"], found["repaired"], found["left"]) == (True, True, [])
    assert found["problems"][0]["number"] == 301


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-n", "-y", "image"], 16, "only one of -n, -p (or -a) and -y can be given"),
        (["-D", "image"], 16, "can only be used with -y"),
        (["-z", "image"], 16, "no such option"),
        (["-n"], 16, "missing argument"),
        (["-n", "none"], 8, "No such file or directory"),
        (["-n", "."], 8, "is a directory"),
        (["-n", "text"], 8, "not a deferfs image"),
    ],
)
def test_paths_that_cannot_be_checked(
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


def test_fsck_deferfs_is_a_program_of_its_own(image: Path, program: Command) -> None:
    assert program("-a", "-C0", image, entry="fsck_main").code == 0
    assert program(entry="fsck_main").code == 16


@pytest.mark.mounted
def test_a_mounted_image_is_refused(mounted: Path, image: Path, program: Command) -> None:
    for option in ("-n", "-p", "-y"):
        outcome = program("fsck", option, image)
        assert outcome.code == 8
        assert f"{image}: is mounted on {mounted}" in outcome.err
        assert is_one_line(outcome.err)
