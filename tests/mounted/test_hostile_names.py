"""Names made to deceive the reader of a terminal or a log: of files, directories, images, labels and processes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deferfs.ondisk.format import INODE_BYTES
from tests import preloaded
from tests.mounted.polling import wait_until

pytestmark = pytest.mark.mounted

EVIL = os.fsdecode(b"a\nb\rc\x1b[2J\xff\x9b1m" + "\u202egnp\u2028\x85".encode())
"""Forges lines, clears the screen, is no UTF-8, turns the direction of writing."""
SHOWN = "a\\nb\\rc\\x1b[2J\\xff\\x9b1m\\u202egnp\\u2028\\x85"
COMMAND_SECONDS_MAX = 100

SIT_INSIDE = """
import ctypes, os, sys
os.chdir(sys.argv[1])
ctypes.CDLL(None).prctl(15, os.fsencode(sys.argv[2]), 0, 0, 0)  # PR_SET_NAME
print("here", flush=True)
sys.stdin.read()
"""


def harmless(data: bytes) -> str:
    """The text, when every line of it is printable UTF-8."""
    text = data.decode()
    raw = sorted({character for character in text if not character.isprintable() and character != "\n"})
    assert not raw, f"{raw} in {text!r}"
    return text


def deferfs(*words: object, code: int = 0) -> str:
    """What the command prints on both its outputs, which is fit for a terminal."""
    done = preloaded.run(list(map(str, words)), COMMAND_SECONDS_MAX)
    text = harmless(os.fsencode(done.stdout)) + harmless(os.fsencode(done.stderr))
    assert done.returncode == code, (words, done.returncode, text)
    if "--json" in words:
        for part in text.splitlines() if words[:2] == ("debug", "directory") else [text]:
            json.loads(part)
        assert text.isascii()
    return text


@dataclass(frozen=True)
class Place:
    """Everything in it has the name EVIL."""

    image: Path
    mountpoint: Path
    log: Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path / f"image{EVIL}", tmp_path / f"mnt{EVIL}", tmp_path / f"log{EVIL}")
    found.mountpoint.mkdir()
    deferfs("mkfs", found.image, "--size", "32M", "-L", EVIL)
    deferfs("mkfs", "--json", found.image, "-f", "-L", EVIL)
    deferfs("mount", "-v", "-o", f"log={found.log}", found.image, found.mountpoint)
    yield found
    while os.path.ismount(found.mountpoint):
        subprocess.run(["umount", "-l", found.mountpoint], check=True)


def fill(mount: Path) -> None:
    (mount / EVIL).mkdir()
    (mount / EVIL / EVIL).write_text("content")
    os.setxattr(mount / EVIL / EVIL, f"user.{EVIL}", b"value")
    (mount / f"link{EVIL}").symlink_to(EVIL)
    (mount / f"lost{EVIL}").write_text("content")


@pytest.fixture
def user(place: Place) -> Iterator[int]:
    """A process of the name EVIL that uses the mount."""
    fill(place.mountpoint)
    command = [sys.executable, "-c", SIT_INSIDE, str(place.mountpoint / EVIL), EVIL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        yield process.pid
        process.stdin.close()


def test_commands_on_a_mount_escape_names(place: Place, user: int) -> None:
    mount = place.mountpoint
    assert SHOWN in deferfs("stat", mount)
    inode = os.stat(mount / EVIL / EVIL).st_ino
    for words in (
        ["stat", "--json", mount], ["stat", "--prometheus", mount], ["stat", "--inode", inode, mount],
        ["stat", "--inode", inode, "--json", mount], ["info", mount], ["info", "--json", mount], ["info", place.image],
        ["ctl", mount, f"trace={place.log}.json", "trace=off", "evict=inline", "lockdep=report", "sync"],
        ["ctl", mount, "evict=deferred", "--json"], ["sync", mount],
    ):  # fmt: skip
        deferfs(*words)
    assert "the keys are" in deferfs("ctl", mount, f"{EVIL}={EVIL}", code=1)
    assert "exists already" in deferfs("ctl", mount, f"trace={place.image}", code=1)
    assert f"is mounted on {mount.parent}/mnt{SHOWN}" in deferfs("fsck", "-n", place.image, code=8)
    busy = deferfs("umount", mount, code=1)
    assert f"(pid {user}, " in busy
    assert "busy: used by a\\nb\\rc\\x1b[2J" in busy
    daemon = json.loads(deferfs("stat", "--json", mount))["pid"]
    process = os.pidfd_open(daemon)
    try:
        os.kill(daemon, signal.SIGUSR1)
        os.kill(daemon, signal.SIGTERM)
        wait_until(lambda: b"busy: used by" in place.log.read_bytes(), "the daemon to say that it is busy")
        os.kill(daemon, signal.SIGTERM)
        assert select.select([process], [], [], COMMAND_SECONDS_MAX)[0]
    finally:
        os.close(process)
    text = harmless(place.log.read_bytes())
    assert "busy: used by a\\nb\\rc\\x1b[2J" in text
    stamp = f"{mount.parent}/mnt{SHOWN}: "
    assert all(stamp in line for line in text.splitlines())


def test_commands_on_an_image_escape_names(place: Place) -> None:
    image = place.image
    fill(place.mountpoint)
    inode = os.stat(place.mountpoint / EVIL / EVIL).st_ino
    deferfs("umount", place.mountpoint)
    for words in (
        ["info", image], ["info", "--json", image], ["fsck", "-n", "-v", image], ["fsck", "-n", "--json", image],
        ["fsck", "-p", image], ["fsck", "-C", "2", "-n", image], ["debug", "superblock", image],
        ["debug", "superblock", "--json", image], ["debug", "inode", image, f"/{EVIL}/{EVIL}"],
        ["debug", "directory", image, "/"], ["debug", "directory", "--json", image, f"/{EVIL}"],
        ["debug", "extents", image, inode], ["debug", "journal", "-v", image], ["debug", "orphans", image],
        ["debug", "bisect", image],
    ):  # fmt: skip
        deferfs(*words)
    failing: list[list[object]] = [
        ["debug", "inode", image, f"/none{EVIL}"], ["mount", image, f"{place.mountpoint}/none"],
        ["info", f"{image}none"], ["mkfs", image], ["crash", "replay", f"{image}none"], ["umount", place.mountpoint],
    ]  # fmt: skip
    for words in failing:
        deferfs(*words, code=32 if words[0] == "mount" else 1)
    deferfs("mkfs", image, "-L", EVIL * 2, "-f", code=2)
    deferfs(f"{EVIL}", code=2)


def test_fsck_and_debug_of_a_damaged_image_escape_names(place: Place) -> None:
    fill(place.mountpoint)
    name = f"lost{EVIL}"
    deferfs("umount", place.mountpoint)
    record = json.loads(deferfs("debug", "inode", "--json", place.image, f"/{name}"))
    with place.image.open("r+b") as file:
        file.seek(record["block"] * 4096 + record["index"] * INODE_BYTES)
        file.write(os.urandom(INODE_BYTES))
    found = deferfs("fsck", "-n", "-v", place.image, code=4)
    assert f"lost{SHOWN}" in found
    deferfs("fsck", "-n", "--json", place.image, code=4)
    deferfs("debug", "directory", place.image, "/")
    assert f"lost{SHOWN}" in deferfs("fsck", "-y", place.image, code=1)
