"""What must be true after a repair, whatever was damaged."""

from __future__ import annotations

import functools
import stat
from collections.abc import Iterable

from deferfs.check import Report, check_image
from deferfs.check.repair import Repaired, repair_image
from deferfs.check.report import Findings
from deferfs.check.superblocks import read_superblock
from deferfs.device import MemoryDevice
from deferfs.ondisk.inode import ROOT_INO
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode
from tests.unit.check.image import Image, metadata_blocks
from tests.unit.check.repair.losses import Holdings, holdings, losses
from tests.unit.check.repair.survey import Facts, Footprints, footprints, open_copy, survey
from tests.unit.check.sample import sample

NOW = 5


@functools.lru_cache(maxsize=4)
def known(image: bytes) -> tuple[dict[bytes, Facts], Footprints]:
    """What a sound image holds, and what each path of it rests on."""
    return survey(open_copy(image)), footprints(image)


@functools.lru_cache(maxsize=4)
def held(image: bytes) -> Holdings:
    """The names and bytes of a sound image."""
    return holdings(image)


@functools.cache
def sample_bytes() -> bytes:
    return sample().device.snapshot()


@functools.cache
def sample_metadata() -> list[int]:
    return metadata_blocks(sample_bytes())


def repaired(image: Image) -> Repaired:
    """Repair it: the check then finds nothing, and a second repair has nothing to do."""
    outcome = repair_image(image.device, NOW)
    assert outcome.report.clean
    findings = Findings()
    read_superblock(image.device, findings)
    assert not findings.problems  # of the copies, which the second repair writes again
    content = _without_superblocks_and_log(image)
    again = repair_image(image.device, NOW)
    assert again.actions == ()
    assert _without_superblocks_and_log(image) == content
    require_clean(again.report)  # the check of what is on the device
    return outcome


def _without_superblocks_and_log(image: Image) -> bytes:
    superblock, size = image.superblock, image.fmt.block_size
    content = image.device.snapshot()
    log_end = superblock.journal_start + superblock.journal_blocks
    return content[image.fmt.reserved_blocks * size : superblock.journal_start * size] + content[log_end * size :]


def require_clean(report: Report) -> None:
    assert not report.problems, "\n".join(problem.message for problem in report.problems)
    assert report.complete


def require_untouched(image: Image, original: bytes, hit: Iterable[int], *, exact: bool = True) -> dict[bytes, Facts]:
    """The image mounts, and what rests on none of the blocks `hit` is as it was. Without `exact`, it may have gained
    a name elsewhere, or a new inode number for its blocks: only contents are compared. The contents of a file that is
    whole itself are somewhere, whatever became of its directories. With `exact`, no name is lost whose leaf is whole,
    and no byte whose block and leaf are. What there is now.
    """
    before, rests_on = known(original)
    now = survey(open_copy(image.device.snapshot()))
    damaged = set(hit)
    if exact:
        require_no_loss_beyond(image, original, damaged)
    contents = {facts.content for facts in now.values()}
    for path, blocks in rests_on.own.items():
        assert blocks & damaged or before[path].content in contents, path
    for path, blocks in rests_on.all.items():
        if not blocks & damaged:
            assert path in now, path
            if exact:
                assert now[path] == before[path], path
            else:
                assert now[path].content == before[path].content, path
    return now


def require_no_loss_beyond(image: Image, original: bytes, hit: set[int]) -> None:
    """What is lost is what the damage of the blocks `hit` accounts for."""
    lost = losses(held(original), holdings(image.device.snapshot()), hit)
    assert not lost.names_beyond, lost.names_beyond
    assert not lost.pieces_beyond, [(piece.ino, piece.logical) for piece in lost.pieces_beyond]


def require_usable(image: Image) -> None:
    """A volume on it works: create, write, delete, unmount, and the check finds nothing."""
    driver = open_copy(image.device.snapshot())
    ino = driver.run(namespace.create, driver.volume, ROOT_INO, b"new one", NewInode(stat.S_IFREG | 0o644)).ino
    driver.write(ino, 0, b"x" * 5000)
    driver.commit()
    driver.run(namespace.unlink, driver.volume, ROOT_INO, b"new one")
    driver.close()
    assert isinstance(driver.device, MemoryDevice)
    require_clean(check_image(driver.device))
