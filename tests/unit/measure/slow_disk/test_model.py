"""The queue model: what always holds, and the figures of small cases."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.measure.slow_disk.model import MILLISECOND, Model, Service, stated
from deferfs.measure.slow_disk.presets import PRESETS, Preset, preset_of
from deferfs.measure.slow_disk.wire import Kind

MS = MILLISECOND


Requests = list[tuple[Kind, int, int, int]]
"""Kind, block, bytes, and the time since the one before."""


class Served(NamedTuple):
    kind: Kind
    length: int
    arrived: int
    service: Service


def least_of(preset: Preset, kind: Kind, length: int) -> float:
    """The least time in service of any request of this size, wherever it lies, in ns."""
    base = {"read": preset.read, "write": preset.write, "flush": preset.flush}[kind]
    cached = kind == "write" and preset.cache
    transfer = length * 1000 / preset.megabytes_per_second if preset.megabytes_per_second and not cached else 0.0
    return base * MS * math.exp(-2.326 * preset.jitter) + transfer


presets = st.builds(
    Preset,
    name=st.just("drawn"),
    words=st.just("drawn"),
    servers=st.integers(1, 5),
    depth=st.integers(1, 8),
    read=st.sampled_from([0.0, 0.1, 2.0]),
    write=st.sampled_from([0.0, 0.02, 3.0]),
    flush=st.sampled_from([0.0, 5.0]),
    seek=st.sampled_from([0.0, 8.0]),
    jitter=st.sampled_from([0.0, 0.5]),
    megabytes_per_second=st.sampled_from([0.0, 10.0]),
    requests_per_second=st.sampled_from([0.0, 500.0]),
    destage=st.sampled_from([0.0, 4.0]),
    cache=st.sampled_from([0.0, 10.0]),
)
arrivals = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "write", "write", "flush"]),
        st.integers(0, 7),
        st.sampled_from([512, 4096, 65536]),
        st.sampled_from([0, 0, 1000, MS, 20 * MS]),
    ),
    max_size=60,
)


def run(model: Model, requests: Requests) -> list[Served]:
    now, served = 0, []
    for kind, block, length, pause in requests:
        now += pause
        length = 0 if kind == "flush" else length
        served.append(Served(kind, length, now, model.arrive(kind, block * 4096, length, now)))
    return served


def overlapping(intervals: list[tuple[int, int]]) -> int:
    """The most intervals [start, end) that contain one instant."""
    marks = sorted(
        [(start, 1) for start, end in intervals if end > start] + [(end, -1) for s, end in intervals if end > s]
    )
    most = count = 0
    for _, change in marks:
        count += change
        most = max(most, count)
    return most


@given(presets, arrivals)
def test_a_request_is_admitted_then_begun_then_ended(preset: Preset, requests: Requests) -> None:
    for one in run(Model(preset), requests):
        assert one.arrived <= one.service.admitted <= one.service.start <= one.service.end


@given(presets, arrivals)
def test_no_more_are_in_the_disk_than_its_depth(preset: Preset, requests: Requests) -> None:
    served = run(Model(preset), requests)
    assert overlapping([(one.service.admitted, one.service.end) for one in served]) <= preset.depth


@given(presets, arrivals)
def test_no_more_are_in_service_than_servers(preset: Preset, requests: Requests) -> None:
    served = run(Model(preset), requests)
    assert overlapping([(one.service.start, one.service.end) for one in served]) <= preset.servers


@given(presets, arrivals)
def test_a_flush_overtakes_nothing_and_nothing_overtakes_it(preset: Preset, requests: Requests) -> None:
    served = run(Model(preset), requests)
    for place, one in enumerate(served):
        if one.kind == "flush":
            assert all(before.service.end <= one.service.start for before in served[:place])
            assert all(one.service.end <= after.service.start for after in served[place + 1 :])


@given(presets, arrivals)
def test_nothing_is_faster_than_stated(preset: Preset, requests: Requests) -> None:
    for one in run(Model(preset), requests):
        assert one.service.end - one.service.start >= least_of(preset, one.kind, one.length) - 2


@given(presets, arrivals)
def test_the_whole_disk_keeps_its_rates(preset: Preset, requests: Requests) -> None:
    """Of bytes: what is still in the cache when all is done has not passed the medium yet."""
    served = [one for one in run(Model(preset), requests) if one.kind != "flush"]
    if served and preset.megabytes_per_second:
        transfers = sum(one.length for one in served) * 1000 / preset.megabytes_per_second - preset.cache * MS
        assert max(one.service.end for one in served) - served[0].service.start >= transfers - len(served)
    if preset.requests_per_second:
        starts = [one.service.start for one in served]
        gap = round(1e9 / preset.requests_per_second)
        assert all(later - earlier >= gap for earlier, later in pairwise(starts))


@given(presets, arrivals)
def test_no_server_rests_while_a_request_waits(preset: Preset, requests: Requests) -> None:
    """But for a flush, and for the rate of requests."""
    served = run(Model(msgspec.structs.replace(preset, requests_per_second=0.0)), requests)
    for place, one in enumerate(served):
        if one.service.start == one.service.admitted:
            continue
        before = served[:place]
        at = one.service.start - 1  # it still waits
        if one.kind == "flush":
            assert any(other.service.end == one.service.start for other in before)
        elif not any(other.kind == "flush" and other.service.end > at for other in before):
            busy = sum(other.service.start <= at < other.service.end for other in before)
            assert busy == preset.servers


@given(presets, arrivals, st.integers())
def test_the_same_seed_gives_the_same_times(preset: Preset, requests: Requests, seed: int) -> None:
    assert run(Model(preset, seed), requests) == run(Model(preset, seed), requests)


@given(presets, presets, arrivals, arrivals)
def test_a_flush_waits_for_requests_to_the_disk_of_before(
    first: Preset, second: Preset, before: Requests, after: Requests
) -> None:
    model = Model(first)
    old = run(model, before)
    model.set_preset(second)
    now = old[-1].arrived if old else 0
    for kind, block, length, pause in after:
        now += pause
        service = model.arrive(kind, block * 4096, length, now)
        if kind == "flush":
            assert all(one.service.end <= service.start for one in old)


# --- small cases ---


def test_a_disk_without_delay_answers_at_once() -> None:
    model = Model(PRESETS["none"])
    for kind in ("read", "write", "flush"):
        assert model.arrive(kind, 0, 1 << 20, 5) == Service(5, 5, 5)


def test_one_server_serves_one_after_the_other() -> None:
    model = Model(preset_of("read=2,servers=1"))
    assert [model.arrive("read", 0, 512, 0).end for _ in range(3)] == [2 * MS, 4 * MS, 6 * MS]


def test_many_servers_serve_at_a_time() -> None:
    model = Model(preset_of("read=2,servers=2,depth=3"))
    found = [model.arrive("read", 0, 512, 0) for _ in range(5)]
    assert [one.end // MS for one in found] == [2, 2, 4, 4, 6]
    assert [one.admitted // MS for one in found] == [0, 0, 0, 2, 2]
    assert model.waiting(0) == 5
    assert model.waiting(2 * MS) == 3


def test_a_flush_stands_between() -> None:
    model = Model(preset_of("read=2,write=2,flush=5"))
    ends = [model.arrive(kind, 0, 512, 0).end // MS for kind in ("write", "write", "flush", "read", "flush")]
    assert ends == [2, 2, 7, 9, 14]


def test_bandwidth_is_shared_and_latency_is_not() -> None:
    model = Model(preset_of("read=1,megabytes_per_second=1"))
    assert [model.arrive("read", 0, 2000, 0).end // MS for _ in range(3)] == [3, 5, 7]


def test_only_what_follows_on_needs_no_seek() -> None:
    model = Model(preset_of("read=1,write=1,seek=8,servers=1"))
    places = [("read", 0), ("read", 4096), ("write", 8192), ("read", 4096), ("write", 0)]
    ends = [0]
    for kind, offset in places:
        ends.append(model.arrive(kind, offset, 4096, ends[-1]).end)  # type: ignore[arg-type]
    assert [(end - start) // MS for start, end in pairwise(ends)] == [9, 1, 1, 9, 9]


class TestWriteCache:
    @pytest.fixture
    def model(self) -> Model:
        return Model(preset_of("read=2,write=1,flush=5,destage=4,cache=10,servers=1"))

    def test_writes_are_fast_and_the_flush_pays(self, model: Model) -> None:
        assert model.arrive("write", 0, 512, 0).end == 1 * MS
        assert model.arrive("write", 9000, 512, 1 * MS).end == 2 * MS
        assert model.arrive("flush", 0, 0, 2 * MS).end == (2 + 5 + 8) * MS
        assert model.arrive("flush", 0, 0, 15 * MS).end == (15 + 5) * MS  # all is paid

    def test_a_sequential_write_owes_no_destage(self, model: Model) -> None:
        model.arrive("write", 0, 512, 0)
        model.arrive("write", 512, 512, 1 * MS)
        assert model.arrive("flush", 0, 0, 2 * MS).end == (2 + 5 + 4) * MS

    def test_the_disk_pays_when_it_has_nothing_else_to_do(self, model: Model) -> None:
        model.arrive("write", 0, 512, 0)
        model.arrive("write", 9000, 512, 1 * MS)  # 8 ms owed, until 2 ms nothing paid
        model.arrive("read", 0, 512, 5 * MS)  # 3 paid; reads until 7
        assert model.arrive("flush", 0, 0, 9 * MS).end == (9 + 5 + 8 - 3 - 2) * MS

    def test_writes_wait_when_the_cache_is_full(self, model: Model) -> None:
        ends = [0]
        for number in range(4):
            ends.append(model.arrive("write", number * 9000, 512, ends[-1]).end)
        assert [end // MS for end in ends[1:]] == [1, 2, 5, 10]

    def test_a_stream_of_writes_goes_at_the_speed_of_the_medium(self) -> None:
        model, now = Model(preset_of("write=0.1,cache=10,megabytes_per_second=1,servers=1")), 0
        for number in range(50):
            now = model.arrive("write", number * 5000, 5000, now).end
        # what is in the cache in the end is not written yet; while a write reaches the cache, nothing is
        assert now == 50 * (5 * MS + MS // 10) - 10 * MS
        assert model.arrive("flush", 0, 0, now).end == now + 10 * MS

    def test_another_disk_owes_nothing(self, model: Model) -> None:
        model.arrive("write", 0, 512, 0)
        model.set_preset(PRESETS["none"])
        assert model.arrive("flush", 0, 0, 2 * MS).end == 2 * MS


def test_the_jitter_is_the_stated_one() -> None:
    """Of 20,000 draws: quantiles within what chance allows (six standard errors of a quantile)."""
    preset = preset_of("read=2,jitter=0.3,servers=1")
    model, now, times = Model(preset, seed=1), 0, []
    for _ in range(20_000):
        end = model.arrive("read", 0, 512, now).end
        times.append((end - now) / MS)
        now = end
    times.sort()
    said = stated(preset, "read", 512)
    assert list(said) == pytest.approx([2 * math.exp(-0.3 * 2.326), 2.0, 2 * math.exp(0.3 * 2.326)])
    assert times[0] == pytest.approx(said.least)
    assert times[-1] == pytest.approx(2 * math.exp(0.3 * 3.09))
    assert times[10_000] == pytest.approx(said.p50, rel=0.3 * 6 * 1.2533 / math.sqrt(20_000))
    assert times[19_800] == pytest.approx(said.p99, rel=0.3 * 6 * math.sqrt(0.0099) / 0.02665 / math.sqrt(20_000))


def test_stated_times_of_a_disk_with_a_cache() -> None:
    preset = preset_of("read=1,write=1,flush=5,seek=8,destage=4,cache=10,megabytes_per_second=1")
    assert stated(preset, "read", 2000) == pytest.approx((11, 11, 11))
    assert stated(preset, "write", 2000) == pytest.approx((1, 1, 1))
    assert stated(preset, "flush", 2000) == pytest.approx((5, 11, 11))
