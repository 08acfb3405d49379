import os
from pathlib import Path

import pytest

from deferfs.measure.host import stacks
from deferfs.measure.host.stacks import Sighting, Sightings, StackSampler, parse_stack
from deferfs.measure.scenario import Stall
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.shared_samples import SharedSamples

TEXT = """\
[<0>] ext4_read_bh+0x58/0x90
[<0>] __btrfs_free_extent.isra.0+0x12d/0x200
[<0>] evict+0x10/0x20 [ext4]
[<ffffffff81>] 0xffffffff81
"""


def test_functions_of_a_stack() -> None:
    assert parse_stack(TEXT) == ["ext4_read_bh", "__btrfs_free_extent.isra.0", "evict"]
    assert parse_stack("") == []


class _Looks:
    """A `/proc/PID/stack` that says something else each time, and ends the sampling with its last word."""

    def __init__(self, stop: StopFlag, texts: list[str]) -> None:
        self.stop, self.texts = stop, texts

    def read_text(self) -> str:
        if len(self.texts) == 1:
            self.stop.raise_()
        text = self.texts.pop(0)
        if not text:
            raise ProcessLookupError
        return text


def sample(samples: SharedSamples, texts: list[str], long_ns: int) -> Sightings:
    sampling = stacks._Sampling(os.getpid(), samples, long_ns)
    stop = StopFlag()
    sampling._path = _Looks(stop, texts)  # type: ignore[assignment]
    return sampling.measure(stop)


def test_long_waits_are_looked_at() -> None:
    samples = SharedSamples(4)
    samples.end(3)
    samples.begin(1)  # since the machine was started
    a, b = "[<0>] a+0x1/0x2\n", "[<0>] b+0x1/0x2\n"
    found = sample(samples, [a, b, "", b], long_ns=5)
    assert {(seen.index, *seen.stack, seen.samples) for seen in found.seen} == {(1, "a", 1), (1, "b", 2)}
    assert list(found.longest_ns) == [1]


def test_the_longest_has_the_stack_that_was_seen_most_often() -> None:
    sampler = StackSampler(os.getpid(), SharedSamples(4))
    seen = [Sighting(0, ["x"], 9), Sighting(2, ["a", "evict"], 2), Sighting(2, ["b", "evict"], 3)]
    sampler._sightings = Sightings(seen, {})
    assert sampler.stalls("s", [10, 5, 90, 7], keep=3) == [
        Stall("s", 90, ["b", "evict"], 5),
        Stall("s", 10, ["x"], 9),
        Stall("s", 7, [], 0),
    ]


def test_a_process_samples_and_is_gone_afterwards() -> None:
    samples = SharedSamples(4)
    with StackSampler(os.getpid(), samples) as sampler:
        assert Path(f"/proc/{sampler.pid}").exists()
    assert not Path(f"/proc/{sampler.pid}").exists()
    assert sampler.stalls("s", [1]) == [Stall("s", 1, [], 0)]


def test_a_sampler_that_dies_costs_the_stacks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(self: object, stop: StopFlag) -> Sightings:
        os._exit(1)

    monkeypatch.setattr(stacks._Sampling, "measure", dies)
    with StackSampler(os.getpid(), SharedSamples(1)) as sampler:
        pass
    assert sampler.stalls("s", [4]) == [Stall("s", 4, [], 0)]
