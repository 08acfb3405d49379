"""Mount options and the system's own commands: mount(8), fstab, umount(8), and other users."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from deferfs.mount.host import syscalls
from tests.mounted.conftest import MakeScratch
from tests.mounted.expect import fails_with
from tests.mounted.polling import wait_until
from tests.mounted.scratch import Scratch, deferfs, run

pytestmark = pytest.mark.mounted


def program_for_mount(path: Path) -> Path:
    """A `deferfs` that mount(8), which keeps no PATH, can be told by its name: `PROGRAM#IMAGE` with the type fuse."""
    path.write_text(f"#!/bin/sh\nexec '{sys.executable}' -P -m deferfs \"$@\"\n")
    path.chmod(0o755)
    return path


def as_nobody(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as an ordinary user. It starts inside of `cwd`, whose parents are not for its eyes."""
    return run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command, cwd=cwd, code=None)


def mount_options(path: Path) -> tuple[set[str], str]:
    """(options, file system type) as the kernel sees the mount."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4] == str(path):
            return set(before.split()[5].split(",")) | set(after.split()[2].split(",")), after.split()[0]
    raise AssertionError(f"{path} is not mounted")


def test_fstab(scratch: Scratch, tmp_path: Path) -> None:
    """A line of fstab, mount(8) by the mountpoint, umount(8): the image is clean when the daemon has ended."""
    fstab = tmp_path / "fstab"
    fstab.write_text(
        f"{program_for_mount(tmp_path / 'deferfs')}#{scratch.image} {scratch.mountpoint} fuse "
        f"noauto,nofail,x-systemd.automount,allow_other,noatime,suid,evict={scratch.evict},commit=1 0 2\n"
    )
    run("mount", "-T", fstab, scratch.mountpoint)
    options, kind = mount_options(scratch.mountpoint)
    assert kind == "fuse.deferfs"
    assert {"rw", "noatime", "allow_other"} <= options
    assert "nosuid" not in options
    assert scratch.statistics().evict == scratch.evict
    (scratch.mountpoint / "file").write_text("content")
    with scratch.daemon_exit():
        run("umount", scratch.mountpoint)
    assert scratch.check()["files"] == 1
    assert "state    clean" in deferfs("info", scratch.image).stdout


def test_a_mount_right_after_umount_waits_for_the_daemon(scratch: Scratch) -> None:
    """umount(8) does not wait until everything is written back; the next mount does."""
    for number in range(3):
        mount = scratch.mount()
        (mount / f"file{number}").write_bytes(bytes(5_000_000))
        run("umount", mount)
    scratch.mount()
    assert len(list(scratch.mountpoint.iterdir())) == 3
    scratch.unmount_and_check()


def test_read_only(plain: Scratch) -> None:
    mount = plain.mount()
    (mount / "file").write_text("content")
    plain.unmount()
    before = hashlib.sha256(plain.image.read_bytes()).hexdigest()
    plain.mount("ro")
    assert (mount / "file").read_text() == "content"
    with fails_with(errno.EROFS):
        (mount / "file").write_text("other")
    with fails_with(errno.EROFS):
        (mount / "file").unlink()
    with fails_with(errno.EROFS):
        os.utime(mount / "file")
    plain.unmount()
    assert hashlib.sha256(plain.image.read_bytes()).hexdigest() == before


def test_read_only_with_a_log_to_replay(plain: Scratch) -> None:
    """Replaying would write, so it is refused, and nothing changes."""
    mount = plain.mount()
    (mount / "file").write_text("content")
    plain.sync()
    plain.kill()
    plain.detach()
    before = hashlib.sha256(plain.image.read_bytes()).hexdigest()
    done = deferfs("mount", plain.image, mount, "-o", "ro", code=32)
    assert "mount it read-write once" in done.stderr
    assert hashlib.sha256(plain.image.read_bytes()).hexdigest() == before
    plain.mount()
    assert (mount / "file").read_text() == "content"
    plain.unmount_and_check()


@pytest.mark.needs("getfattr")
def test_other_users(plain: Scratch) -> None:
    """They are kept out, or with allow_other get what the permissions say."""
    mount = plain.mount()
    mount.chmod(0o755)
    (mount / "public").write_text("for all\n")
    (mount / "secret").write_text("for root\n")
    (mount / "secret").chmod(0o600)
    (mount / "theirs").mkdir()
    os.chown(mount / "theirs", 65534, 65534)
    assert "Permission denied" in as_nobody("cat", "public", cwd=mount).stderr
    plain.remount("allow_other")
    assert as_nobody("cat", "public", cwd=mount).stdout == "for all\n"
    assert "Permission denied" in as_nobody("cat", "secret", cwd=mount).stderr
    assert "Permission denied" in as_nobody("touch", "mine", cwd=mount).stderr
    assert "Permission denied" in as_nobody("rm", "-f", "public", cwd=mount).stderr
    done = as_nobody("sh", "-c", "umask 027; echo hello > file; mkdir directory; mkfifo fifo", cwd=mount / "theirs")
    assert done.returncode == 0, done.stderr
    found = {path.name: path.stat() for path in (mount / "theirs").iterdir()}
    assert {status.st_uid for status in found.values()} == {status.st_gid for status in found.values()} == {65534}
    modes = {name: stat.S_IMODE(status.st_mode) for name, status in found.items()}
    assert modes == {"file": 0o640, "directory": 0o750, "fifo": 0o640}
    assert "Operation not permitted" in as_nobody("chown", "0", "file", cwd=mount / "theirs").stderr
    assert "trusted." not in as_nobody("getfattr", "-d", "-m", "-", "file", cwd=mount / "theirs").stdout
    plain.unmount_and_check()


def test_root_alone_executes_programs_only(plain: Scratch) -> None:
    """On a mount for root only the kernel asks the daemon: `test -x` must distinguish executables from other files."""
    mount = plain.mount()
    (mount / "file").touch(0o644)
    (mount / "program").write_text("#!/bin/sh\n")
    (mount / "program").chmod(0o755)
    (mount / "directory").mkdir(0o600)
    assert not os.access(mount / "file", os.X_OK)
    assert os.access(mount / "file", os.R_OK | os.W_OK)
    assert os.access(mount / "program", os.X_OK)
    assert os.access(mount / "directory", os.X_OK)
    (mount / "file").chmod(0o001)
    assert os.access(mount / "file", os.X_OK)
    found = run("find", mount, "-type", "f", "-executable").stdout.split()
    assert sorted(found) == [f"{mount}/file", f"{mount}/program"]
    plain.unmount_and_check()


def test_set_user_id_programs(plain: Scratch) -> None:
    """Effective with `suid` only; and a write by another takes the bits away."""
    mount = plain.mount("allow_other")
    run("cp", "/usr/bin/id", mount / "id")
    (mount / "id").chmod(0o4755)
    assert as_nobody("./id", "-u", cwd=mount).stdout == "65534\n"
    plain.remount("allow_other", "suid")
    assert as_nobody("./id", "-u", cwd=mount).stdout == "0\n"
    (mount / "id").chmod(0o6777)
    assert as_nobody("sh", "-c", "echo >> id", cwd=mount).returncode == 0
    assert stat.S_IMODE((mount / "id").stat().st_mode) == 0o777
    plain.unmount_and_check()


def test_devices_and_programs(plain: Scratch) -> None:
    """Devices work with `dev` only; programs do not run with `noexec`."""
    mount = plain.mount()
    os.mknod(mount / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    run("cp", "/usr/bin/true", mount / "true")
    run(mount / "true")
    with fails_with(errno.EACCES):
        (mount / "zero").open("rb").close()
    plain.remount("dev", "noexec")
    with (mount / "zero").open("rb") as file:
        assert file.read(3) == bytes(3)
    with fails_with(errno.EACCES):
        run(mount / "true")
    plain.unmount_and_check()


def test_block_device(make_scratch: MakeScratch) -> None:
    """A loop device instead of an image file."""
    scratch = make_scratch(size="64M")
    attached = run("losetup", "--find", "--show", scratch.image, code=None)
    if attached.returncode:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        deferfs("mkfs", "-q", "-f", device)
        deferfs("mount", device, scratch.mountpoint)
        (scratch.mountpoint / "file").write_bytes(bytes(1_000_000))
        deferfs("umount", scratch.mountpoint)
        deferfs("fsck", "-n", device)
        deferfs("mount", device, scratch.mountpoint)
        assert (scratch.mountpoint / "file").read_bytes() == bytes(1_000_000)
        deferfs("umount", scratch.mountpoint)
    finally:
        run("losetup", "--detach", device)


@pytest.mark.parametrize("block_size", ["1K", "2K", "16K", "64K"])
def test_block_sizes(make_scratch: MakeScratch, block_size: str) -> None:
    """Smaller and larger than a page."""
    scratch = make_scratch(size="128M", format_options=["-b", block_size])
    mount = scratch.mount()
    fresh = scratch.space()
    contents = {f"file{length}": os.urandom(length) for length in (0, 100, 1000, 5000, 70_000, 1_000_000)}
    for name, content in contents.items():
        (mount / name).write_bytes(content)
    with (mount / "file1000000").open("r+b") as file:
        file.seek(500_001)
        file.write(b"inside")
    contents["file1000000"] = contents["file1000000"][:500_001] + b"inside" + contents["file1000000"][500_007:]
    os.truncate(mount / "file70000", 30_000)
    contents["file70000"] = contents["file70000"][:30_000]
    for number in range(300):
        os.link(mount / "file0", mount / f"a longer name of the same file, number {number}")
    scratch.remount()
    for name, content in contents.items():
        assert (mount / name).read_bytes() == content
    assert os.statvfs(mount).f_bsize == int(block_size[:-1]) * 1024
    run("rm", "-r", *mount.iterdir())
    scratch.drain()
    assert scratch.space() == fresh
    scratch.unmount_and_check()


def test_discard_gives_space_back_to_the_host(scratch: Scratch) -> None:
    """With `discard` the image file shrinks again after deletions have been committed."""
    mount = scratch.mount("discard")
    before = scratch.image.stat().st_blocks
    (mount / "file").write_bytes(os.urandom(20_000_000))
    scratch.sync()
    assert scratch.image.stat().st_blocks - before >= 20_000_000 // 512
    (mount / "file").unlink()
    scratch.drain()
    assert scratch.image.stat().st_blocks - before < 2_000_000 // 512
    scratch.unmount_and_check()


def test_the_next_mount_keeps_its_control_socket(make_scratch: MakeScratch) -> None:
    """The kernel gives the device number away at once: a daemon that ends later must not take the new socket along."""
    first, second = make_scratch(size="64M"), make_scratch(size="64M")
    first.mount()
    pid = first.pid
    with first.daemon_exit():
        os.kill(pid, signal.SIGSTOP)
        try:
            syscalls.umount(str(first.mountpoint), syscalls.MNT_DETACH)
            second.mount()
        finally:
            os.kill(pid, signal.SIGCONT)
    assert second.pid != pid
    second.unmount_and_check()
    first.check()


def test_one_handler_that_waits_blocks_all_requests(plain: Scratch, tmp_path: Path) -> None:
    """A request that waits (here: for a thaw) keeps all others waiting, even one that needs nothing."""
    mount = plain.mount("handlers=1")
    device = mount.stat().st_dev
    plain.control("freeze=1")
    before = plain.statistics()
    assert before.handlers == 1
    answered = before.requests.get("statfs")
    threads = [Thread(target=(mount / "file").touch), Thread(target=os.statvfs, args=(mount,))]
    threads[0].start()
    wait_until(lambda: plain.statistics().freeze.waiting == 1, "a request that waits")
    connections = tmp_path / "fusectl"
    connections.mkdir()
    run("mount", "-t", "fusectl", "fusectl", connections)
    try:
        unanswered = connections / str(os.minor(device)) / "waiting"
        threads[1].start()
        wait_until(lambda: int(unanswered.read_text()) == 2, "one behind it")
        assert plain.statistics().requests.get("statfs") == answered
    finally:
        run("umount", connections)
        plain.control("thaw=1")
        for thread in threads:
            thread.join()
    assert plain.statistics().requests.get("statfs") != answered
    plain.unmount_and_check()
