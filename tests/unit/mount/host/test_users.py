"""Processes that keep a mount busy, from a made-up /proc."""

import os
from pathlib import Path

from deferfs.mount.host.syscalls import MountIdentity
from deferfs.mount.host.users import User, users_of


def process(proc: Path, pid: int, name: str, **links: str) -> None:
    home = proc / str(pid)
    (home / "fd").mkdir(parents=True)
    (home / "comm").write_text(f"{name}\n")
    for link, target in links.items():
        place = home / "fd" / link[2:] if link.startswith("fd") else home / link
        os.symlink(target, place)


def mount_identity(link: str) -> MountIdentity:
    """What is in /mnt, or was before it was moved or deleted, is on 0:50."""
    target = os.readlink(link)
    return MountIdentity("0:50" if target == "/mnt" or target.startswith("/mnt/") else "8:1", 0)


def test_each_kind_of_use_is_found(tmp_path: Path) -> None:
    process(tmp_path, 1, "init", cwd="/", root="/", exe="/sbin/init", fd0="/dev/null")
    process(tmp_path, 20, "bash", cwd="/mnt", root="/")
    process(tmp_path, 3, "vim", cwd="/", fd4="/mnt/notes (deleted)")
    process(tmp_path, 4, "other", cwd="/mntx")
    process(tmp_path, 5, "prog", exe="/mnt/bin/prog")
    process(tmp_path, 6, "mapper", cwd="/")
    (tmp_path / "6" / "maps").write_text("7f00-7f01 r--p 00000000 00:32 12   /mnt/lib.so\n")
    (tmp_path / "meminfo").touch()
    assert users_of("0:50", proc=str(tmp_path), mount_identity=mount_identity) == [
        User(3, "vim", "/mnt/notes (deleted)"),
        User(5, "prog", "program"),
        User(6, "mapper", "mapping of /mnt/lib.so"),
        User(20, "bash", "working directory"),
    ]


def test_a_name_is_read_as_it_is_and_told_on_one_line(tmp_path: Path) -> None:
    process(tmp_path, 7, " evil\n\x1b[2J", cwd="/mnt")
    (user,) = users_of("0:50", proc=str(tmp_path), mount_identity=mount_identity)
    assert user.name == " evil\n\x1b[2J"
    assert str(user) == " evil\\n\\x1b[2J (pid 7, working directory)"


def test_a_user_in_words() -> None:
    assert str(User(20, "bash", "working directory")) == "bash (pid 20, working directory)"
