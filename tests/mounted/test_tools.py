"""More programs that people run: each does the same on deferfs and on ext4, and what it leaves is the same."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.examples import night
from tests.mounted import sources
from tests.mounted.polling import wait_until
from tests.mounted.posix.places import loop_place
from tests.mounted.scratch import Scratch, run
from tests.mounted.trees import Entry, assert_same, snapshot

pytestmark = [
    pytest.mark.mounted,
    pytest.mark.needs(
        "ar", "cc", "gcc", "getfacl", "inotifywait", "make", "mkfs.ext4", "rsync", "setfacl", "sqlite3", "vim"
    ),
]

MACHINE = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1000000000"}


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """An empty directory on ext4."""
    with loop_place(tmp_path / "ext4", "ext4") as place:
        yield place.directory


@pytest.fixture
def ours(plain: Scratch) -> Iterator[Path]:
    """An empty directory on deferfs, with permission checks; afterwards the image is clean, also after a remount."""
    directory = plain.mount("allow_other", "dev", "suid") / "directory"
    directory.mkdir()
    yield directory
    before = snapshot(directory)
    plain.remount("allow_other", "dev", "suid")
    assert_same(before, snapshot(directory))
    plain.unmount_and_check()


@pytest.fixture
def dressed(tmp_path: Path) -> Path:
    """A tree with everything that copies get wrong, access control lists included."""
    source = tmp_path / "source"
    source.mkdir()
    sources.make_awkward_tree(source)
    run("setfacl", "-m", "u:1001:rwx,g:2000:r--", source / "small")
    run("setfacl", "-m", "u:1001:rwx", "-m", "d:u:1002:r-x,d:g::---", source / "sticky")
    return source


def test_rsync(ours: Path, dressed: Path) -> None:
    """-aHAX, again with --checksum (nothing to do), then after changes with --delete."""
    program = ("rsync", "-aHAX", "--modify-window=-1", "--itemize-changes")
    run(*program, f"{dressed}/", f"{ours}/copy/")
    assert_same(snapshot(dressed), snapshot(ours / "copy"))
    assert run(*program, "--checksum", f"{dressed}/", f"{ours}/copy/").stdout == ""
    (dressed / "block").unlink()
    (dressed / "small").write_bytes(b"other")
    run("setfacl", "-b", dressed / "sticky")
    (dressed / "large").rename(dressed / "renamed")
    run(*program, "--checksum", "--delete", f"{dressed}/", f"{ours}/copy/")
    assert_same(snapshot(dressed), snapshot(ours / "copy"))


def test_tar(ours: Path, dressed: Path, tmp_path: Path) -> None:
    """Packed on the mount and unpacked on the mount, with attributes and lists."""
    words = ("--xattrs", "--xattrs-include=*", "--acls", "--format=posix", "-S")
    (dressed / "socket").unlink()  # tar keeps none
    run("tar", "-C", dressed, *words, "-cf", ours / "one.tar", ".")
    (ours / "one").mkdir()
    run("tar", "-C", ours / "one", *words, "-xpf", ours / "one.tar")
    assert_same(snapshot(dressed), snapshot(ours / "one"))
    run("tar", "-C", ours / "one", *words, "-cf", tmp_path / "two.tar", ".")
    two = tmp_path / "two"
    two.mkdir()
    run("tar", "-C", two, *words, "-xpf", tmp_path / "two.tar")
    assert_same(snapshot(dressed), snapshot(two))


@pytest.mark.parametrize("sparse", [night("always"), "auto", night("never")])
def test_cp(ours: Path, dressed: Path, sparse: str) -> None:
    run("cp", "-a", f"--sparse={sparse}", dressed, ours / "first")
    run("cp", "-a", f"--sparse={sparse}", ours / "first", ours / "second")
    assert_same(snapshot(dressed), snapshot(ours / "second"))
    holes = (ours / "second" / "sparse").stat()
    if sparse == "always":
        assert holes.st_blocks * 512 < holes.st_size // 10


def test_find_and_du(ours: Path, ext4: Path, dressed: Path) -> None:
    queries = (
        (".", "-type", "f", "-size", "+1k"), (".", "-perm", "-4000"), (".", "-user", "12345"), (".", "-links", "+2"),
        (".", "-newermt", "2005-01-01"), (".", "-not", "-newermt", "1970-01-01"), (".", "-type", "l", "-lname", "s*"),
        (".", "-empty"), (".", "-depth", "-name", "level2*"), (".", "-samefile", "block"), (".", "-type", "c,p,s"),
        (".", "-mindepth", "2", "-maxdepth", "4", "-not", "-type", "d", "-printf", "%p %y %m %n %U %G %s\\n"),
    )  # fmt: skip
    answers = []
    for place in (ours, ext4):
        run("cp", "-a", dressed, place / "tree")
        found = [sorted(run("find", *query, cwd=place / "tree", env=MACHINE).stdout.splitlines()) for query in queries]
        du = run("du", "-0", "-l", "--apparent-size", "-b", "-a", ".", cwd=place / "tree", env=MACHINE).stdout
        sizes = [line for line in du.split("\0") if not os.path.isdir(place / "tree" / line.partition("\t")[2])]
        answers.append((found, sorted(sizes)))
    assert answers[0] == answers[1]


def test_gcc_and_make(ours: Path, ext4: Path) -> None:
    """A library, a program and its test; make again has nothing to do; after a touch it has."""
    builds = []
    for place in (ours, ext4):
        sources.make_c_project(place, modules=12)
        run("make", "-j3", cwd=place, env=MACHINE)
        assert run("./program", cwd=place).stdout == f"{sum(range(12))}\n"
        assert "Nothing to be done" in run("make", "all", cwd=place, env=MACHINE).stdout
        os.utime(place / "module3.h")
        rebuilt = run("make", "all", cwd=place, env=MACHINE).stdout
        assert "-o module3.o" in rebuilt
        assert "-o module4.o" not in rebuilt
        builds.append(without_times(snapshot(place)))
    assert_same(builds[1], builds[0])


def without_times(tree: dict[str, Entry]) -> dict[str, Entry]:
    return {name: replace(entry, mtime_ns=0) for name, entry in tree.items()}


def test_dpkg_deb(ours: Path, ext4: Path) -> None:
    trees = []
    for place in (ours, ext4):
        package = place / "package"
        (package / "DEBIAN").mkdir(parents=True)
        (package / "DEBIAN" / "control").write_text(
            "Package: sample\nVersion: 1\nArchitecture: all\nMaintainer: N <n@example.org>\nDescription: sample\n"
        )
        shutil.copytree(sources.ROOT / "docs", package / "usr" / "share" / "doc" / "sample")
        for path in package.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
            os.utime(path, (1e9, 1e9))
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", package, place / "sample.deb", env=MACHINE)
        run("dpkg-deb", "-R", place / "sample.deb", place / "unpacked")
        trees.append(without_times(snapshot(place)))
    assert_same(trees[1], trees[0])


def test_inotifywait(ours: Path, ext4: Path) -> None:
    """The same events in the same order."""
    heard = [events_of(place) for place in (ours, ext4)]
    assert heard[0] == heard[1]
    assert "./directory CREATE,ISDIR\n./file CREATE\n" in heard[0]


def events_of(place: Path) -> str:
    log = place.parent / "events"
    words = ("inotifywait", "-m", "-q", "-o", str(log), "--format", "%w%f %e", ".")
    with subprocess.Popen([*words], cwd=place, stderr=subprocess.DEVNULL) as watcher:
        try:
            (place / "ready").touch()  # said as soon as the watch is there

            def is_watching() -> bool:
                os.utime(place / "ready")
                return log.exists() and "ready" in log.read_text()

            wait_until(is_watching, "inotifywait to watch")
            (place / "directory").mkdir()
            (place / "file").write_text("content")
            (place / "file").rename(place / "moved")
            (place / "moved").chmod(0o600)
            (place / "moved").read_text()
            (place / "moved").unlink()
            (place / "directory").rmdir()
            (place / "end").touch()
            wait_until(lambda: "end" in log.read_text(), "the last event")
        finally:
            watcher.terminate()
    lines = log.read_text().splitlines()
    log.unlink()
    return "\n".join(line for line in lines if "ready" not in line and "end" not in line)


def test_vim(ours: Path, ext4: Path) -> None:
    """Edit with swap, backup and undo files, in place and by rename; recover from the swap file of a killed editor."""
    trees = []
    for place in (ours, ext4):
        edited = place / "text"
        for setting in ("backupcopy=yes", "backupcopy=no"):
            edited.write_text("one\ntwo\nthree\n")
            options = f"set nocompatible {setting} backup backupskip= undofile undodir=. backupdir=. directory=. fsync"
            run("vim", "-es", "-u", "NONE", "-c", options, "-c", "%s/two/2/ | wq", edited, cwd=place)
            assert edited.read_text() == "one\n2\nthree\n"
            assert (place / "text~").read_text() == "one\ntwo\nthree\n"
        kill = "normal! Gonever written" + "\\<Esc>"
        script = ["-c", "set nocompatible directory=.", "-c", f'exe "{kill}"', "-c", "preserve", "-c", "!kill -9 $PPID"]
        run("vim", "-es", "-u", "NONE", *script, edited, cwd=place, code=None)
        assert (place / ".text.swp").exists()
        run(
            "vim",
            "-es",
            "-u",
            "NONE",
            "-c",
            "set directory=.",
            "-r",
            edited,
            "-c",
            "wq! recovered",
            cwd=place,
            code=None,
        )
        assert (place / "recovered").read_text() == "one\n2\nthree\nnever written\n"
        trees.append({path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()})
    assert trees[0] == trees[1]


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate"])
def test_sqlite_with_threads(ours: Path, mode: str) -> None:
    """Four connections of one process write in turn, others read; the database is sound and complete."""
    program = sources.ROOT / "tests" / "mounted" / "programs" / "sqlite_threads.py"
    run(sys.executable, program, ours / "database", mode, "4", "25")
    answer = run(
        "sqlite3", ours / "database", "PRAGMA integrity_check; SELECT count(*), sum(number) FROM numbers;"
    ).stdout
    assert answer.split() == ["ok", f"100|{4 * sum(range(25))}"]
