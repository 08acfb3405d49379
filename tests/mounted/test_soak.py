"""A short soak: the promises of the long one that a quarter of a minute can break."""

from __future__ import annotations

import pytest

from bench.scenarios.soak import IMAGE_BYTES, MEMORY, soak
from tests.mounted.conftest import MakeScratch
from tests.mounted.scratch import drop_kernel_caches

pytestmark = pytest.mark.mounted

SECONDS = 15


@pytest.mark.timeout(300)
def test_everything_at_once(make_scratch: MakeScratch) -> None:
    drop_kernel_caches()
    scratch = make_scratch(size=str(IMAGE_BYTES))
    scratch.was_inline = True  # it is switched to and fro
    result = soak(scratch.mount(f"memory={MEMORY}"), SECONDS, 3, 1)
    assert not [verdict for verdict in result.verdicts if verdict.kept is False]
    assert result.rounds > 3
    assert max(sample.inodes for sample in result.samples) > 0
    scratch.unmount_and_check()
