from pathlib import Path

import msgspec

from deferfs.measure.scenario import Pass
from deferfs.measure.scenarios.close import SCENARIO, Parameters, _Job, fill, paths, series_name, sort_samples
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.shared_samples import SharedSamples

SMALL = Parameters(extents=(1, 3), files=2)


def test_samples_are_told_apart() -> None:
    found = sort_samples([1, 2, 3, 4, 5, 6, 7, 8], SMALL)
    assert {name: (series.latency.count, series.latency.max_ns) for name, series in found.items()} == {
        "unlink, 1 extents": (2, 3),
        "close, 1 extents": (2, 4),
        "unlink, 3 extents": (2, 7),
        "close, 3 extents": (2, 8),
    }
    assert {series.due for series in found.values()} == {2}


def test_a_pass_that_did_not_finish_has_what_there_was() -> None:
    found = sort_samples([1, 2, 3, 4, 5], SMALL)
    assert [series.latency.count for series in found.values()] == [2, 2, 1, 0]


def test_the_job_deletes_all_files(tmp_path: Path) -> None:
    fill(tmp_path, SMALL)
    assert len(list(tmp_path.iterdir())) == 4
    samples = SharedSamples(8)
    job = _Job(tmp_path, SMALL, samples)
    job.prepare()
    job.measure(StopFlag())
    assert list(tmp_path.iterdir()) == []
    assert samples.count == 8


def test_files_have_their_extents(tmp_path: Path) -> None:
    fill(tmp_path, SMALL)
    sizes = {
        extents: [Path(path).stat().st_size for path in files] for extents, files in paths(tmp_path, SMALL).items()
    }
    assert sizes == {1: [4096] * 2, 3: [2 * 8192 + 4096] * 2}


def test_measures_are_series_of_the_defaults() -> None:
    names = {series_name(operation, extents) for operation in ("unlink", "close") for extents in Parameters().extents}
    assert {measure.series for measure in SCENARIO.measures} <= names | {"seconds"}


def test_the_longest_close_of_each_side() -> None:
    def one(side: str, *latencies: int) -> Pass:
        return Pass(side, "closed", "finished", 1.0, sort_samples(latencies, SMALL))

    assert SCENARIO.sentences([one("ext4", *[9] * 8), one("xfs", *[8] * 8), one("ext4", *range(8))], SMALL) == [
        "close(2) of a deleted file of 1 extents took up to 9 ns on ext4, 8 ns on XFS.",
        "close(2) of a deleted file of 3 extents took up to 9 ns on ext4, 8 ns on XFS.",
    ]
    assert SCENARIO.sentences([], SMALL) == []


def test_the_sweep_goes_to_a_hundred_thousand_extents() -> None:
    (point,) = SCENARIO.sweep(msgspec.structs.replace(SMALL, files=1))
    assert (max(point.extents), point.files) == (100_000, 1)
