"""Every problem of the catalogue, from damage to one field of the sample image."""

from __future__ import annotations

import pytest

from deferfs.check import CATALOGUE, check_image
from deferfs.check.catalogue import BLOCK_UNREADABLE
from tests.unit.check.damage.every import CASES
from tests.unit.check.reports import codes_of
from tests.unit.check.sample import sample


@pytest.mark.parametrize("name", CASES)
def test_damage_is_reported(name: str) -> None:
    image = sample()
    CASES[name].damage(image)
    before = image.device.snapshot()
    report = check_image(image.device)
    assert codes_of(report) == CASES[name].codes, report.problems
    assert report.clean == (not CASES[name].codes)
    assert image.device.snapshot() == before


def test_every_problem_has_a_case() -> None:
    covered = {code for case in CASES.values() for code in case.codes} | {BLOCK_UNREADABLE.code}
    assert covered == {kind.code for kind in CATALOGUE}


def test_numbers_and_codes_are_unique() -> None:
    assert len({kind.number for kind in CATALOGUE}) == len(CATALOGUE)
    assert len({kind.code for kind in CATALOGUE}) == len(CATALOGUE)
