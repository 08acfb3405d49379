"""`kill -9` of the daemon while programs work: the image recovers, and what was fsynced is exact."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.mounted import sources
from tests.mounted.killing import PROGRAMS, after_requests, assert_as_noted, deleted_but_open, interrupt, recover
from tests.mounted.scratch import Scratch, deferfs, run
from tests.mounted.trees import assert_same, snapshot

pytestmark = [pytest.mark.mounted, pytest.mark.needs("git", "sqlite3")]


def files_below(directory: Path) -> list[Path]:
    """Relative to it."""
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def fed(names: list[Path]) -> bytes:
    """As `xargs -0` reads them. Each name is ended, so none of them waits for the next."""
    return b"".join(bytes(name) + b"\0" for name in names)


def test_cp(scratch: Scratch, tmp_path: Path) -> None:
    source = tmp_path / "source"
    sources.copy_some(Path("/usr/include"), source, 300)
    sources.make_source_distribution(tmp_path / "archive", "json", "email", "asyncio")
    run("tar", "-C", source, "-xf", tmp_path / "archive")
    mount = scratch.mount()
    run("cp", "-a", source, mount / "before")
    scratch.sync()
    with deleted_but_open(mount):
        scratch.sync()
        (mount / "copy").mkdir()
        files = files_below(source)
        program = ["xargs", "-0", "-n", "8", "cp", "-a", "--parents", "-t", mount / "copy"]
        moment = after_requests(scratch, len(files) // 3, "create")
        interrupt(scratch, program, moment, fed=fed(files[: len(files) // 2]), cwd=source)
    recover(scratch)
    assert_same(snapshot(source), snapshot(mount / "before"))
    run("cp", "-a", source, mount / "again")
    assert_same(snapshot(source), snapshot(mount / "again"))
    scratch.unmount_and_check()


def test_the_log_has_the_stack_of_a_daemon_that_died(plain: Scratch) -> None:
    plain.mount()
    with plain.daemon_exit():
        os.kill(plain.pid, signal.SIGSEGV)
    text = plain.log.read_text()
    assert "Fatal Python error: Segmentation fault" in text
    assert "deferfs/mount/daemon/session.py" in text
    plain.log.unlink()
    plain.detach()
    plain.mount()
    plain.unmount_and_check()


def test_tar(scratch: Scratch, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    sources.make_source_distribution(archive, "encodings", "json", "email", "asyncio", "xml", "unittest", "ctypes")
    mount = scratch.mount()
    with deleted_but_open(mount):
        scratch.sync()
        extract = ["tar", "-C", mount, "-xpf", "-"]
        content = archive.read_bytes()
        interrupt(scratch, extract, after_requests(scratch, 20, "create"), fed=content[: len(content) // 2])
    recover(scratch)
    run("tar", "-C", mount, "--unlink-first", "-xpf", archive)
    run("tar", "-C", mount, "--compare", "-f", archive)
    scratch.unmount_and_check()


def test_git(scratch: Scratch, tmp_path: Path) -> None:
    """Killed during a checkout: what had been cloned and synced before is still a sound repository."""
    origin = tmp_path / "origin"
    sources.make_repository(origin, 20)
    mount = scratch.mount()
    clone = ("git", "-C", mount / "clone")
    run("git", "clone", "-q", "--no-local", f"file://{origin}", mount / "clone", env=sources.GIT_ENVIRONMENT)
    checkouts = "while true; do for c in $(git rev-list main); do git checkout -qf $c || exit 1; done; done"
    with deleted_but_open(mount):
        scratch.sync()
        program = ["sh", "-c", f"cd {mount}/clone && {checkouts}"]
        interrupt(scratch, program, after_requests(scratch, 150, "create", "unlink", "rename"))
    recover(scratch)
    run(*clone, "fsck", "--full", "--strict", env=sources.GIT_ENVIRONMENT)
    (mount / "clone" / ".git" / "index.lock").unlink(missing_ok=True)
    run(*clone, "checkout", "-qf", "main", env=sources.GIT_ENVIRONMENT)
    run(*clone, "reset", "-q", "--hard", env=sources.GIT_ENVIRONMENT)
    assert run(*clone, "status", "--porcelain", "-uno", env=sources.GIT_ENVIRONMENT).stdout == ""
    scratch.unmount_and_check()


def test_rm(scratch: Scratch, tmp_path: Path) -> None:
    """Each file that is left is whole; the rest is gone for good, with its space."""
    sources.make_source_distribution(tmp_path / "archive", "json", "email", "asyncio", "xml", "unittest")
    source = tmp_path / "source"
    source.mkdir()
    run("tar", "-C", source, "-xf", tmp_path / "archive")
    mount = scratch.mount()
    fresh = scratch.space()
    run("cp", "-a", source, mount / "copy")
    with deleted_but_open(mount):
        scratch.sync()
        files = files_below(mount / "copy")
        moment = after_requests(scratch, len(files) // 2, "unlink")
        interrupt(
            scratch,
            ["xargs", "-0", "-n", "20", "rm"],
            moment,
            fed=fed(files[: len(files) * 3 // 4]),
            cwd=mount / "copy",
        )
    recover(scratch)
    expected = snapshot(source)
    for name, entry in snapshot(mount / "copy").items():
        if entry.content:
            assert entry == expected[name], name
    run("rm", "-rf", mount / "copy")
    scratch.drain()
    assert scratch.space() == fresh
    scratch.unmount_and_check()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite(scratch: Scratch, tmp_path: Path, mode: str) -> None:
    """No committed transaction is lost, and none is there in part."""
    mount = scratch.mount()
    notes = tmp_path / "notes"
    notes.touch()
    program = [sys.executable, PROGRAMS / "sqlite_writer.py", mount / "database", mode, "1000000", notes]
    with deleted_but_open(mount):
        scratch.sync()
        interrupt(scratch, program, lambda: len(notes.read_text().splitlines()) >= 40)
    committed = int(notes.read_text().splitlines()[-1]) + 1
    recover(scratch)
    query = "PRAGMA integrity_check; SELECT count(*), max(number) FROM numbers;"
    outcome, counts = run("sqlite3", mount / "database", query).stdout.split()
    assert outcome == "ok"
    count, highest = map(int, counts.split("|"))
    assert count == highest + 1 >= committed
    assert count % 10 == 0
    scratch.unmount_and_check()


def test_files_that_were_fsynced_are_exact_after_a_kill(scratch: Scratch, tmp_path: Path) -> None:
    """Killed three times over, at different points, each time with new files."""
    written: dict[Path, Path] = {}
    for number, lines in enumerate((25, 60, 41)):
        mount = scratch.mount()
        notes = tmp_path / f"notes{number}"
        notes.touch()
        written[notes] = mount / f"files{number}"
        program = [sys.executable, PROGRAMS / "fsync_writer.py", written[notes], notes]
        with deleted_but_open(mount):
            scratch.sync()

            def far_enough(notes: Path = notes, lines: int = lines) -> bool:
                return len(notes.read_text().splitlines()) >= lines

            interrupt(scratch, program, far_enough)
        recover(scratch)
        for noted, directory in written.items():
            assert_as_noted(noted, directory)
        scratch.unmount_and_check()


def test_umount_detaches_a_dead_mount(plain: Scratch) -> None:
    """`deferfs umount` deals with the leftover, and a second mount needs no other step."""
    mount = plain.mount()
    (mount / "file").write_bytes(b"kept")
    plain.sync()
    plain.kill()
    done = deferfs("umount", mount)
    assert "its daemon had died" in done.stderr
    assert not plain.is_mounted
    plain.mount()
    assert (mount / "file").read_bytes() == b"kept"
    plain.unmount_and_check()
