"""What may be written to, and that nothing waits or is lost. To open a FIFO wrongly is to hang until the timeout."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from deferfs.errors import UsageError
from deferfs.mount.host.output_file import append_file, check_replaceable, create_file, replace_file, write_results
from tests.unit.check.sample import sample

Opener = Callable[[str], int | None]
OPENERS: tuple[Opener, ...] = (create_file, append_file, replace_file, check_replaceable)


def _image(path: Path) -> None:
    path.write_bytes(sample().device.snapshot())


def _image_without_its_first_superblock(path: Path) -> None:
    path.write_bytes(bytes(512) + sample().device.snapshot()[512:])


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


UNFIT: dict[str, Callable[[Path], None]] = {
    "directory": Path.mkdir,
    "socket": _socket,
    "an image": _image,
    "an image of deferfs": _image_without_its_first_superblock,
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("kind", UNFIT)
def test_images_devices_and_directories_are_not_written_to(kind: str, opener: Opener, tmp_path: Path) -> None:
    path = tmp_path / "there"
    UNFIT[kind](path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(UsageError) as refused:
        opener(str(path))
    assert str(path) in str(refused.value)
    assert opener is create_file or kind in str(refused.value)
    assert not path.is_file() or path.read_bytes() == before


def test_a_fifo_that_no_process_reads(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    for opener in (create_file, append_file, replace_file):
        with pytest.raises(UsageError, match=r"exists already|is a FIFO"):
            opener(path)
    check_replaceable(path)  # the reader may come later, and would be told the end by a look


def test_results_go_to_a_fifo_with_a_reader(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_results(path, b"results")
        assert os.read(reader, 100) == b"results"
        with pytest.raises(UsageError, match="is a FIFO"):
            append_file(path)
    finally:
        os.close(reader)


def test_devices(tmp_path: Path) -> None:
    write_results(os.devnull, b"results")
    check_replaceable(os.devnull)
    with pytest.raises(UsageError, match="No space left on device"):
        write_results("/dev/full", b"results")
    with pytest.raises(UsageError, match="is a character device"):
        append_file(os.devnull)


def test_new_files_are_new_and_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new"
    os.close(create_file(str(path)))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("kept")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for taken in (path, link):
        with pytest.raises(UsageError, match="exists already"):
            create_file(str(taken))
    assert path.read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


def test_a_log_is_continued_and_leads_nowhere_else(tmp_path: Path) -> None:
    path, link = tmp_path / "log", tmp_path / "link"
    for text in (b"one", b"two"):
        fd = append_file(str(path))
        os.write(fd, text)
        os.close(fd)
    assert path.read_bytes() == b"onetwo"
    link.symlink_to(path)
    with pytest.raises(UsageError, match="is a symbolic link"):
        append_file(str(link))


def test_results_replace_what_was_there(tmp_path: Path) -> None:
    path, link = tmp_path / "results", tmp_path / "link"
    link.symlink_to(path)
    write_results(str(path), b"longer than the next")
    check_replaceable(str(path))
    assert path.read_bytes() == b"longer than the next"
    write_results(str(link), b"next")
    assert path.read_bytes() == b"next"


def test_standard_output_is_written_to_from_where_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where it is a file: opened anew, it would be written over from its beginning."""
    os.write(1, b"before ")
    write_results("/dev/stdout", b"results")
    os.write(1, b" after")
    assert capfd.readouterr().out == "before results after"


def test_a_path_that_cannot_be_is_told_before_the_work(tmp_path: Path) -> None:
    check_replaceable(str(tmp_path / "results"))
    assert os.listdir(tmp_path) == []
    with pytest.raises(UsageError, match="is not a directory; make it first"):
        check_replaceable(str(tmp_path / "missing" / "results"))
