"""The samples of output in docs/command-line.md are what the commands print, but for the numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deferfs.cli.stat_table import inode_lines
from deferfs.device import FileDevice
from deferfs.mount.control.why import explain
from deferfs.ondisk.format import INODE_BYTES
from deferfs.store import directories
from deferfs.store.plan import Plan
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from tests.cli.conftest import Command
from tests.documents import DOCS
from tests.unit.runtimes import make_file, running, unlink
from tests.unit.volumes import ROOT, record_of

PAGE = DOCS / "command-line.md"
IMAGE = "disk.img"
_NUMBER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|0x[0-9a-f]+|\d+(?:\.\d+)?")
"""A UUID, a number."""


def samples(text: str) -> list[list[str]]:
    """The indented blocks of a page, line by line."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    return [[line[4:] for line in block.splitlines()] for block in blocks]


def sample(begins: str) -> list[str]:
    """The only sample of the page that begins so."""
    (found,) = [block for block in samples(PAGE.read_text()) if block[0].startswith(begins)]
    return found


def shape(lines: list[str]) -> list[str]:
    """The lines without their numbers."""
    return [_NUMBER.sub("N", line) for line in lines]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_shape_is_all_but_the_numbers() -> None:
    text = "text\n\n    a      b=12 c=0x1f 1.5 MiB\n           d=7a2f6a3e-5c0b-4c0e-9a39-3c1d0f6f1f5b\n\n    other\n"
    (block, other) = samples(text)
    assert shape(block) == ["a      b=N c=N N MiB", "       d=N"]
    assert other == ["other"]


def test_mkfs_and_info(command: Command) -> None:
    found = sample("image ")
    made = command("mkfs", IMAGE, "--size", "1G", "-L", "data").out.splitlines()
    assert shape(found) == shape(made)
    assert found[2:] == made[2:]  # the geometry of such an image, and what its features are
    assert command("info", IMAGE).out.splitlines() == made


def damaged(command: Command) -> None:
    """A file with a wrong bit in its record, and one without a name."""
    assert command("mkfs", "-q", IMAGE, "--size", "16M").code == 0
    driver = Driver.open(FileDevice.open(IMAGE, writable=True), clock=lambda: 10**18, entropy=lambda: 1)
    for name in (b"bit", b"nameless"):
        driver.run(namespace.create, driver.volume, ROOT, name, NewInode(0o100644))

    def lose_the_name(plan: Plan) -> None:
        entry = directories.find(plan, plan.store.inodes.get(plan, ROOT), b"nameless")
        assert entry is not None
        directories.remove(plan, plan.store.inodes.modify(plan, ROOT), entry)

    driver.run_reserved(lose_the_name)
    driver.close()
    record = json.loads(command("debug", "inode", "--json", IMAGE, "/bit").out)
    with Path(IMAGE).open("r+b") as file:
        file.seek(record["block"] * 4096 + record["index"] * INODE_BYTES + 24)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 8]))


def test_fsck(command: Command) -> None:
    damaged(command)
    assert shape(sample(f"{IMAGE}: [")) == shape(command("fsck", "-y", IMAGE).out.splitlines())


async def test_stat_of_one_inode() -> None:
    async with running() as runtime:
        ino = await make_file(runtime, b"file", b"x\n")
        reference = runtime.volume.hold(record_of(runtime.volume, ino))
        await unlink(runtime, b"file")
        found = list(inode_lines(await explain(runtime, ino)))
        await runtime.release(reference)
    assert shape(sample("inode ")) == shape(found)
