"""`deferfs mount`, `mount.deferfs`, mount(8)."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deferfs.device import FileDevice
from deferfs.mount.daemon.image import load_superblock
from deferfs.mount.host import mountinfo
from deferfs.ondisk.inode import ROOT_INO
from deferfs.ondisk.superblock import STATE_ERRORS
from deferfs.store.recovery import superblock_offset
from tests.cli.conftest import Command, Outcome, environment_of_the_program, is_one_line
from tests.cli.daemons import Foreground, wait_for_end
from tests.examples import night

BAD = [
    ("image", "none", [], 32, "no such directory; create it first"),
    ("image", "image", [], 32, "not a directory"),
    ("none", "mount", [], 32, "No such file or directory"),
    ("mount", "mount", [], 32, "is a directory; give an image file or a block device"),
    ("text", "mount", [], 32, "not a deferfs image"),
    ("image", "mount", ["-o", "colour=blue"], 1, "unknown mount option 'colour=blue'"),
    ("image", "mount", ["-o", "evict=lazy"], 1, "must be deferred or inline"),
    ("image", "mount", ["-o", "remount,ro"], 1, "cannot be remounted"),
    ("image", "mount", ["-o", "log=/nowhere/log"], 2, "/nowhere/log: cannot be written"),
    ("image", "mount", ["-z"], 1, "no such option"),
]


@pytest.mark.mounted
@pytest.mark.parametrize(("source", "target", "options", "code", "message"), BAD)
@pytest.mark.parametrize("entry", ["main", night("mount_main")])
def test_images_that_cannot_be_mounted(
    source: str,
    target: str,
    options: list[str],
    code: int,
    message: str,
    entry: str,
    image: Path,
    directory: Path,
    program: Command,
) -> None:
    here = image.parent
    (here / "text").write_text("hello" * 100_000)
    before = image.read_bytes()
    words = [here / source, here / target, *options]
    outcome = program(*words, entry=entry)
    assert outcome.code == code
    assert message in outcome.err
    assert is_one_line(outcome.err)
    assert not os.path.ismount(directory)
    assert image.read_bytes() == before


@pytest.mark.mounted
def test_the_mount_is_usable_when_the_command_returns(mounted: Path, image: Path) -> None:
    found = mountinfo.at(str(mounted), mountinfo.read())
    assert found is not None
    assert (found.fstype, found.source) == ("fuse.deferfs", str(image))
    (mounted / "file").write_text("hello")
    assert (mounted / "file").read_text() == "hello"


@pytest.mark.mounted
@pytest.mark.parametrize(
    ("cache", "evict"), [("on", "deferred"), ("off", "inline"), night("on", "inline"), night("off", "deferred")]
)
def test_files_are_there_after_a_remount(
    evict: str, cache: str, image: Path, directory: Path, program: Command
) -> None:
    options = f"evict={evict},writeback_cache={cache}"
    assert program("mount", image, directory, "-o", options) == Outcome(0, "", "")
    content = os.urandom(300_000)
    (directory / "file").write_bytes(content)
    (directory / "gone").write_bytes(content)
    (directory / "gone").unlink()
    assert program("umount", directory) == Outcome(0, "", "")
    assert not list(directory.iterdir())
    assert program("fsck", "-n", image).code == 0
    assert program("mount", image, directory).code == 0
    assert (directory / "file").read_bytes() == content
    assert os.listdir(directory) == ["file"]
    assert program("umount", directory).code == 0


@pytest.mark.mounted
def test_read_only(image: Path, directory: Path, program: Command) -> None:
    before = image.read_bytes()
    assert program("mount", image, directory, "-o", "ro").code == 0
    with pytest.raises(OSError, match="Read-only file system"):
        (directory / "file").touch()
    assert program("umount", directory).code == 0
    assert image.read_bytes() == before


@pytest.mark.mounted
def test_an_image_is_mounted_once(mounted: Path, image: Path, tmp_path: Path, program: Command) -> None:
    other = tmp_path / "other"
    other.mkdir()
    outcome = program("mount", image, other)
    assert outcome.code == 32
    assert outcome.err == (f"deferfs: {image}: is mounted on {mounted}; unmount it first: deferfs umount {mounted}\n")


@pytest.mark.mounted
def test_a_mount_waits_for_the_daemon_of_the_one_before(image: Path, directory: Path, program: Command) -> None:
    for number in range(3):
        assert program("mount", image, directory) == Outcome(0, "", "")
        assert len(os.listdir(directory)) == number
        (directory / f"file{number}").write_bytes(bytes(1_000_000))
        subprocess.run(["umount", directory], check=True)  # returns before the image is clean
    assert program("fsck", "-n", image).code == 0


@pytest.mark.mounted
def test_mount_8_and_its_helper(image: Path, directory: Path, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "deferfs"
    script.parent.mkdir()
    environment = environment_of_the_program()
    script.write_text(
        f"#!/bin/sh\nPYTHONPATH='{environment['PYTHONPATH']}' exec '{sys.executable}' -P -m deferfs \"$@\"\n"
    )
    script.chmod(0o755)
    subprocess.run(
        ["mount", "-t", "fuse", "-o", "suid,dev,allow_other,noatime,x-a=b,commit=2",
         f"{script}#{image}", directory],
        check=True,
    )  # fmt: skip
    line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if str(image) in line)
    assert line.startswith(f"{image} {directory} fuse.deferfs rw,noatime,user_id=0,group_id=0,")
    assert "allow_other" in line
    subprocess.run(["umount", directory], check=True)


@pytest.mark.mounted
def test_the_helper_of_mount_8_by_name(image: Path, directory: Path, program: Command) -> None:
    fake = program(image, directory, "-f", "-o", "ro", entry="mount_main")
    assert fake == Outcome(0, "", "")
    assert not os.path.ismount(directory)
    assert program(image, directory, "-s", "-n", "-o", "what", entry="mount_main").code == 0
    assert os.path.ismount(directory)
    assert program("umount", directory).code == 0
    told = program(image, directory, "-v", entry="mount_main")
    assert told.err == f"deferfs: {image} is mounted on {directory}\n"
    assert program("umount", directory).code == 0


@pytest.mark.mounted
def test_a_dead_mount_is_explained_and_detached(mounted: Path, image: Path, tmp_path: Path, program: Command) -> None:
    from deferfs.mount.control import client

    daemon = client.find_daemon(client.find_mount(str(mounted)))
    process = os.pidfd_open(daemon.pid)
    os.kill(daemon.pid, signal.SIGKILL)
    wait_for_end(process)
    outcome = program("mount", image, mounted)
    assert outcome.code == 32
    assert outcome.err == (
        f"deferfs: {mounted}: a dead mount is still there (its daemon has ended); "
        f"detach it first: deferfs umount {mounted}\n"
    )
    for command in ("stat", "sync"):
        outcome = program(command, mounted)
        assert outcome.code == 1
        assert "its daemon does not answer" in outcome.err
    outcome = program("umount", mounted)
    assert outcome.code == 0
    assert "its daemon had died; detached" in outcome.err
    assert not os.path.ismount(mounted)
    assert program("mount", image, mounted).code == 0


@pytest.mark.mounted
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_cleanly(number: signal.Signals, image: Path, directory: Path, program: Command) -> None:
    daemon = Foreground(image, directory)
    (directory / "file").write_bytes(bytes(5_000_000))
    daemon.process.send_signal(number)
    assert daemon.end() == 0
    assert not os.path.ismount(directory)
    assert program("info", image).out.endswith("state    clean\n")


@pytest.mark.mounted
def test_a_second_signal_cuts_the_users_off_but_keeps_what_they_wrote(
    image: Path, directory: Path, program: Command
) -> None:
    daemon = Foreground(image, directory)
    content = os.urandom(5_000_000)
    file = os.open(directory / "file", os.O_CREAT | os.O_WRONLY)
    assert os.write(file, content) == len(content)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_for(f"busy: used by {Path('/proc/self/comm').read_text().strip()}")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.end() == 0
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.fsync(file)
    with contextlib.suppress(OSError):  # the kernel reports the same again
        os.close(file)
    assert program("mount", image, directory).code == 0
    assert (directory / "file").read_bytes() == content
    assert program("umount", directory).code == 0


@pytest.mark.mounted
def test_usr1_reports_statistics_and_stacks(image: Path, directory: Path) -> None:
    daemon = Foreground(image, directory)
    daemon.process.send_signal(signal.SIGUSR1)
    daemon.wait_for('statistics: {"')
    daemon.wait_for("thread MainThread:")
    daemon.wait_for("task deferfs.mount.daemon.serve.Server.run")
    daemon.process.send_signal(signal.SIGHUP)  # the terminal goes: nothing happens
    assert os.path.ismount(directory)
    daemon.process.terminate()
    assert daemon.end() == 0


@pytest.mark.mounted
def test_the_log_of_a_daemon_can_go_to_a_file(image: Path, directory: Path, tmp_path: Path, program: Command) -> None:
    log = tmp_path / "log"
    assert program("mount", image, directory, "-o", f"log={log}").code == 0
    assert program("umount", directory).code == 0
    lines = log.read_text().splitlines()
    assert lines[-2].endswith(f"{directory}: INFO: mounted {image}")
    assert lines[-1].endswith(f"{directory}: INFO: unmounted {image}")


@pytest.mark.mounted
def test_mounting_an_image_with_errors_warns_to_repair_it(image: Path, directory: Path, program: Command) -> None:
    device = FileDevice.open(str(image), writable=True)
    superblock = load_superblock(device)
    marked = superblock.next(state=superblock.state | STATE_ERRORS)
    device.write(superblock_offset(marked), marked.encode())
    device.close()
    advice = f"deferfs: {image}: marked as having errors; unmount it and repair it: deferfs fsck -y {image}\n"
    for options in ("ro", "rw"):
        assert program("mount", image, directory, "-o", options) == Outcome(0, "", advice)
        assert program("umount", directory) == Outcome(0, "", advice.replace("unmount it and ", ""))
    assert program("fsck", "-y", image).code == 1
    assert program("mount", image, directory) == Outcome(0, "", "")
    assert program("umount", directory) == Outcome(0, "", "")


@pytest.mark.mounted
def test_a_mount_without_a_root_directory_does_not_stay(image: Path, directory: Path, program: Command) -> None:
    """Its record is damaged, which only the first request detects. No dead mount is left."""
    content = bytearray(image.read_bytes())
    record = content.index(b"DINO" + ROOT_INO.to_bytes(8, "little"))
    content[record + 20] ^= 1
    image.write_bytes(content)
    outcome = program("mount", image, directory)
    assert outcome.code == 32
    assert outcome.err == (
        f"deferfs: {image}: the root directory cannot be read: Structure needs cleaning; check it: deferfs fsck -n\n"
    )
    assert not os.path.ismount(directory)
    assert directory.stat().st_dev == directory.parent.stat().st_dev
    assert program("fsck", "-y", image).code == 1
    assert program("mount", image, directory) == Outcome(0, "", "")
    assert program("umount", directory).code == 0


@pytest.mark.mounted
def test_an_image_by_another_name_is_the_same_image(
    image: Path, directory: Path, tmp_path: Path, program: Command
) -> None:
    link = tmp_path / "link"
    link.symlink_to(image)
    assert program("mount", link, directory).code == 0
    assert program("info", image).out.endswith("state    mounted\n")
    assert "is mounted on" in program("mount", image, directory).err
    assert program("umount", image) == Outcome(0, "", "")
    assert program("fsck", "-n", image).code == 0


@pytest.mark.mounted
def test_a_mount_that_the_kernel_refuses_leaves_the_image_clean(image: Path, directory: Path, program: Command) -> None:
    code = "from deferfs.cli.main import main; main()"
    words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-P", "-c", code]
    done = subprocess.run(
        [*words, "mount", image, directory],
        capture_output=True,
        text=True,
        check=False,
        env=environment_of_the_program(),
    )
    assert done.returncode == 32
    assert "the kernel does not let this process mount" in done.stderr
    assert is_one_line(done.stderr)
    assert program("info", image).out.endswith("state    clean\n")
