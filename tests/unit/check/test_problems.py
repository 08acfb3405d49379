"""Every problem of the catalogue, caused by damage to one field of the sample image.

Each case names exactly the problems that the check must then report: no fewer, and no others.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import NamedTuple

import pytest

from deferfs.check import CATALOGUE, check_image
from deferfs.device import FailingDevice, Fault
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.directory import pack_entry
from deferfs.ondisk.inode import (
    FLAG_QUARANTINED,
    FORM_BYTES,
    FORM_EXTENTS,
    FORM_NONE,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    ROOT_INO,
    Inode,
)
from deferfs.ondisk.node import EXTENT, UNWRITTEN, DirectoryNode, ExtentNode
from deferfs.ondisk.orphan import OrphanBlock
from deferfs.ondisk.superblock import STATE_CLEAN, STATE_ERRORS
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs
from tests.unit.check import images
from tests.unit.check.images import BIG, FILES, Image, edit, sample

Damage = Callable[[Image], object]


class Case(NamedTuple):
    damage: Damage
    codes: frozenset[str]


CASES: dict[str, Case] = {}


def case(*codes: str) -> Callable[[Damage], Damage]:
    """The function damages an image so that the check reports `codes`."""

    def enter(damage: Damage) -> Damage:
        name = damage.__name__
        assert name not in CASES
        CASES[name] = Case(damage, frozenset(codes))
        return damage

    return enter


def codes_of(image: Image) -> set[str]:
    return {problem.code for problem in check_image(image.device).problems}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_reported(name: str) -> None:
    pass
