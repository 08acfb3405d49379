"""Disks by name and in words."""

from pathlib import Path

import pytest

from deferfs.errors import UsageError
from deferfs.measure.slow_disk.presets import DEPTH_MAX, PRESETS, Preset, preset_of


def test_the_named_disks() -> None:
    assert list(PRESETS) == ["none", "ssd", "network", "hdd"]
    for name, preset in PRESETS.items():
        assert preset_of(name) is preset
        assert preset.name == name
        assert 1 <= preset.servers <= preset.depth <= DEPTH_MAX
        assert preset.source
    assert PRESETS["none"] == Preset("none", PRESETS["none"].words, PRESETS["none"].source, DEPTH_MAX, DEPTH_MAX)


def test_times_in_words() -> None:
    disk = preset_of("read=2, write=2.5,flush=5")
    assert (disk.read, disk.write, disk.flush, disk.jitter) == (2.0, 2.5, 5.0, 0.0)
    assert (disk.depth, disk.servers) == (32, 32)
    assert disk.name == "read=2, write=2.5,flush=5"


def test_a_disk_in_words_may_have_all_that_a_named_one_has() -> None:
    disk = preset_of(
        "read=1,depth=4,jitter=0.5,megabytes_per_second=100,requests_per_second=50,seek=8,destage=3,cache=9"
    )
    assert (disk.depth, disk.servers, disk.jitter, disk.seek) == (4, 4, 0.5, 8.0)
    assert (disk.megabytes_per_second, disk.requests_per_second, disk.destage, disk.cache) == (100.0, 50.0, 3.0, 9.0)
    assert preset_of("read=1,servers=1").servers == 1


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_the_documentation_has_its_numbers(preset: Preset) -> None:
    """Of a row for each disk, in the order of the fields."""
    names = ["read", "write", "flush", "seek", "jitter", "servers", "depth"]
    names += ["megabytes_per_second", "requests_per_second", "destage", "cache"]
    cells = [f"{getattr(preset, name):g}" if getattr(preset, name) else "-" for name in names]
    page = Path(__file__).parents[4] / "docs" / "benchmarking.md"
    assert f"| `{preset.name}` | {' | '.join(cells)} |" in page.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no disk is called '': there are none, ssd, network, hdd, or times in ms, as in read=2,write=2,flush=5"),
        ("sdd", "no disk is called 'sdd'"),
        ("reed=2", "'reed=2' in the disk 'reed=2': the words are read, write, flush"),
        ("read=2,", "'' in the disk 'read=2,'"),
        ("read=2,hdd", "'hdd' in the disk"),
        ("read=fast", "read=fast: not a number of ms from 0 to 60000"),
        ("read=nan", "read=nan: not a number"),
        ("read=-1", "read=-1: not a number"),
        ("read=60001", "read=60001: not a number"),
        ("read=1,read=2", "gives read twice"),
        ("depth=0", "depth=0: not a number from 1 to 64"),
        ("servers=1.5", "servers=1.5: not a number from 1 to 64"),
        ("jitter=3", "jitter=3: not a number of sigma from 0 to 2"),
    ],
)
def test_mistakes_are_told(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        preset_of(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
