"""Lock holders, from the running kernel, and from a made-up /proc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deferfs.mount.host.lock_holders import Holder, holders_of
from tests.unit.mount.locks import EXCLUSIVE, SHARED, holding

RECORD = "fcntl.fcntl(fd, fcntl.F_OFD_SETLK, bytes.fromhex(sys.argv[3]))"


@pytest.mark.parametrize(("lock", "shared"), [(SHARED, True), (EXCLUSIVE, False), (RECORD, False)])
def test_a_process_of_this_machine(lock: str, shared: bool, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    assert holders_of(str(path)) == []
    with holding(path, lock) as pid:
        assert holders_of(str(path)) == [Holder(pid, "holder", shared)]
        assert holders_of(str(tmp_path)) == []


def test_the_name_of_a_process_is_fit_for_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    with holding(path, SHARED, "a\n\x1b[2Jb\udcff") as pid:
        (holder,) = holders_of(str(path))
    assert str(holder) == f"a\\n\\x1b[2Jb\\xff (pid {pid})"


def test_no_file_has_no_holders(tmp_path: Path) -> None:
    assert holders_of(str(tmp_path / "none")) == []


def test_without_a_look_at_descriptors_the_list_of_all_locks_tells(tmp_path: Path) -> None:
    """As for processes of other users."""
    path, proc = tmp_path / "image", tmp_path / "proc"
    path.touch()
    status = path.stat()
    identity = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    (proc / "20").mkdir(parents=True)
    (proc / "20" / "comm").write_text("reader\n")
    (proc / "locks").write_text(
        f"1: FLOCK  ADVISORY  READ 20 {identity} 0 EOF\n"
        f"1: -> FLOCK  ADVISORY  WRITE 21 {identity} 0 EOF\n"
        f"2: OFDLCK ADVISORY  WRITE -1 {identity} 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 22 {identity}0 0 EOF\n"
    )
    assert holders_of(str(path), proc=str(proc)) == [Holder(20, "reader", True)]
