"""How a struct says what its fields mean."""

from typing import Annotated

import msgspec

from deferfs.contract.fields import Bytes, Metric, Seconds, Total, Unit, fields_of, says


class Inner(msgspec.Struct, frozen=True):
    """Inside."""

    seconds: Annotated[Seconds, says("how long")]


class Outer(msgspec.Struct, frozen=True):
    """Outside."""

    size: Annotated[Bytes, says("how large"), Metric("size_bytes")]
    kinds: Annotated[dict[str, Total], says("how many of each"), Metric("kinds", labels=("kind",))]
    nested: Annotated[dict[str, dict[str, Inner]], says("by two names")]
    later: Annotated[Seconds | None, says("when")]
    inner: Inner


def test_unit_meaning_and_metric_are_read_back() -> None:
    size, kinds, nested, later, inner = fields_of(Outer)
    assert (size.name, size.unit, size.meaning, size.metric) == ("size", Unit.BYTES, "how large", Metric("size_bytes"))
    assert (kinds.unit, kinds.metric) == (Unit.TOTAL, Metric("kinds", labels=("kind",)))
    assert (nested.unit, nested.leaf) == (None, Inner)
    assert later.unit is Unit.SECONDS
    assert (inner.kind, inner.unit, inner.meaning) == (Inner, None, "")
