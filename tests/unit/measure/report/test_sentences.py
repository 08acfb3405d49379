from pathlib import Path

from msgspec.structs import replace

from deferfs.measure.report.sentences import all_sentences, set_apart
from tests.unit.measure.fakes import report


def test_the_results_of_a_sweep_are_told_apart(tmp_path: Path) -> None:
    (one,) = report(tmp_path, pairs=2).results
    results = [
        replace(one, parameters={"inodes": inodes, "chunk": 4096}, disk=disk, sentences=["it waited", "it ended"])
        for inodes, disk in ((100, "none"), (300, "none"), (300, "hdd"))
    ]
    assert [set_apart(result, results) for result in results] == [
        "disk none, inodes=100",
        "disk none, inodes=300",
        "disk hdd, inodes=300",
    ]
    found = all_sentences(replace(report(tmp_path, pairs=2), results=results))
    assert found[:3] == ["Disk none, inodes=100: it waited.", "It ended.", "Disk none, inodes=300: it waited."]


def test_the_result_of_a_single_run_is_not_set_apart(tmp_path: Path) -> None:
    found = report(tmp_path, pairs=2)
    assert set_apart(found.results[0], found.results) == ""
