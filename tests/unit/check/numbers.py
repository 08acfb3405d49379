"""Numbers to put into fields: any, and those at which something ends."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.unit.check.builder import BLOCKS

NUMBERS = st.one_of(
    st.integers(0, 2 * BLOCKS),
    st.sampled_from([(1 << n) + d for n in (8, 16, 31, 32, 48, 63, 64) for d in (-1, 0)]),
).map(lambda n: n & 0xFFFF_FFFF_FFFF_FFFF)
