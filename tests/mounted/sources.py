"""Real input: trees, archives and repositories to bring onto the mount, made outside of it."""

from __future__ import annotations

import os
import socket
import stat
import sysconfig
import tarfile
from pathlib import Path

from tests.mounted.scratch import run

ROOT = Path(__file__).resolve().parents[2]
GIT_ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A. U. Thor",
    "GIT_AUTHOR_EMAIL": "author@example.org",
    "GIT_COMMITTER_NAME": "A. U. Thor",
    "GIT_COMMITTER_EMAIL": "author@example.org",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "protocol.file.allow",
    "GIT_CONFIG_VALUE_1": "always",
}
_OLD_NS = -86_400_000_000_001
"""Before 1970, and not a whole second."""


def copy_some(source: Path, target: Path, names_max: int) -> None:
    """Copy children of `source`, as many as stay below `names_max` names. None when there is no such directory."""
    target.mkdir()
    left = names_max
    for child in sorted(source.iterdir()) if source.is_dir() else []:
        count = 1 + (sum(1 for _ in child.rglob("*")) if child.is_dir() and not child.is_symlink() else 0)
        if count <= left:
            run("cp", "-a", child, target / child.name)
            left -= count


def make_awkward_tree(target: Path) -> None:
    """What copies tend to get wrong: every kind of file, names, modes, owners, times, links, holes, xattrs."""
    deep = target.joinpath(*(f"level{level}" for level in range(30)))
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("deep down\n")
    (target / "empty").touch()
    (target / "small").write_bytes(b"inline")
    (target / "block").write_bytes(bytes(range(256)) * 16)
    (target / "large").write_bytes(os.urandom(1_234_567))
    for name in ("a name with spaces", "new\nline", "\u00fcml\u00e4ut", "-rf", "x" * 255, "\udcff\udcfe"):
        (target / name).write_text(repr(name))
    with (target / "sparse").open("wb") as file:
        file.seek(10_000_000)
        file.write(b"island")
        file.truncate(50_000_000)
    os.link(target / "block", target / "second name")
    os.link(target / "block", deep / "third name")
    for length in (1, 60, 400, 4000):
        os.symlink("s" * length, target / f"symlink{length}")
    os.mkfifo(target / "fifo", 0o640)
    os.mknod(target / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as unix:
        directory = os.open(target, os.O_RDONLY)
        try:  # a path longer than 108 bytes is no address
            unix.bind(f"/proc/self/fd/{directory}/socket")
        finally:
            os.close(directory)
    _dress(target)


def _dress(target: Path) -> None:
    (target / "small").chmod(0o4711)
    (target / "empty").chmod(0)
    sticky = target / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    os.chown(target / "large", 12345, 54321)
    os.chown(target / "symlink60", 1, 2, follow_symlinks=False)
    os.utime(target / "small", ns=(_OLD_NS, _OLD_NS))
    os.utime(target / "block", ns=(1_000_000_000_123_456_789, 1_234_567_890_123_456_789))
    os.utime(target / "symlink60", ns=(5, 7), follow_symlinks=False)
    os.setxattr(target / "small", "user.small", b"value")
    os.setxattr(target / "large", "user.large", bytes(2000))
    os.setxattr(sticky, "user.directory", b"")


def make_repository(target: Path, commits: int = 12) -> None:
    """A git repository in which each commit adds, changes, moves and deletes files."""
    git = ("git", "-C", target)
    run("git", "init", "-q", "-b", "main", target, env=GIT_ENVIRONMENT)
    for number in range(commits):
        folder = target / f"folder{number % 4}"
        folder.mkdir(exist_ok=True)
        for index in range(8):
            (folder / f"file{number}-{index}").write_text(f"{number} {index}\n" * (50 * index + 1))
        (target / "changing").write_text("\n".join(map(str, range(number * 100))))
        if number > 3:
            (target / f"folder{(number - 4) % 4}" / f"file{number - 4}-0").unlink()
            (target / f"folder{(number - 4) % 4}" / f"file{number - 4}-1").rename(target / f"moved{number}")
        link = target / "latest"
        link.unlink(missing_ok=True)
        link.symlink_to(f"folder{number % 4}/file{number}-7")
        run(*git, "add", "-A", env=GIT_ENVIRONMENT)
        date = f"{1_700_000_000 + number} +0000"
        dated = {**GIT_ENVIRONMENT, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        run(*git, "commit", "-q", "-m", f"Commit {number}", env=dated)


def make_source_distribution(archive: Path, *packages: str) -> None:
    """A tar of packages of the standard library, sources only."""
    library = Path(sysconfig.get_path("stdlib"))

    def sources_only(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name else member

    with tarfile.open(archive, "w") as tar:
        tar.add(library, "distribution", recursive=False)
        for package in packages:
            tar.add(library / package, f"distribution/{package}", filter=sources_only)


def make_c_project(target: Path, modules: int) -> None:
    """A static library of modules with headers, a program that adds up what they return, and a Makefile."""
    names = [f"module{number}" for number in range(modules)]
    for number, name in enumerate(names):
        (target / f"{name}.h").write_text(f"#pragma once\nint {name}(void);\n")
        (target / f"{name}.c").write_text(f'#include "{name}.h"\nint {name}(void) {{ return {number}; }}\n')
    includes = "".join(f'#include "{name}.h"\n' for name in names)
    total = " + ".join(f"{name}()" for name in names)
    (target / "program.c").write_text(f'#include <stdio.h>\n{includes}int main(void) {{ printf("%d\\n", {total}); }}\n')
    objects = " ".join(f"{name}.o" for name in names)
    (target / "Makefile").write_text(
        f"all: program\n"
        f"program: program.o library.a\n\t$(CC) -o $@ $^\n"
        f"library.a: {objects}\n\trm -f $@\n\tar rcsD $@ $^\n"
        f"%.o: %.c %.h\n\t$(CC) -O1 -c -o $@ $<\n"
        f"program.o: program.c {' '.join(f'{name}.h' for name in names)}\n\t$(CC) -O1 -c -o $@ $<\n"
    )
