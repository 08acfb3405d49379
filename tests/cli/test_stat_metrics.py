"""`deferfs stat --prometheus`."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deferfs.cli.stat_metrics import text
from tests.cli.conftest import Command, environment_of_the_program, is_one_line
from tests.cli.stat_samples import BIG, STATISTICS
from tests.documents import statistics as statistics_tables
from tests.statistics_sample import read

Samples = dict[str, dict[tuple[str, ...], float]]


def samples(exposition: str) -> Samples:
    """{name: {label values but the mountpoint: value}}, as Prometheus reads them."""
    found: Samples = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            assert sample.labels["mountpoint"]
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "mountpoint")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_names_and_units() -> None:
    found = samples(text(read(STATISTICS)))
    assert all(re.fullmatch(r"deferfs_[a-z_]+", name) for name in found)
    assert not [name for name in found if re.search(r"_(ns|ms|us|mb|kib|percent)(_|$)", name)]
    for name in ("gc_queued", "journal_commits", "request_waits", "anomalies", "circular_waits_broken"):
        assert f"deferfs_{name}_total" in found
    assert found["deferfs_size_bytes"][()] == BIG * 4096
    assert found["deferfs_uptime_seconds"][()] == 123.4
    assert found["deferfs_gc_queue_bytes"] == {("0",): 999 << 30, ("1",): 0}
    assert found["deferfs_request_waits_total"] == {("throttle", "create"): BIG, ("log", "unlink"): 1}
    assert found["deferfs_request_wait_seconds_total"][("throttle", "create")] == 5
    assert found["deferfs_reclaim_waits_total"] == {("gc", "forget"): BIG}


RELEASED = Path(__file__).with_name("metrics-1.txt")
"""Type, name and labels of every metric when the schema of the statistics was made; none of them may go."""


def test_the_metrics_of_this_schema_are_all_there() -> None:
    found = {
        f"{family.type} {sample.name} {' '.join(sorted(sample.labels))}"
        for family in text_string_to_metric_families(text(read(STATISTICS)))
        for sample in family.samples
    }
    assert set(RELEASED.read_text().splitlines()) <= found


def test_every_field_that_names_a_metric_makes_it() -> None:
    found = {
        sample.name for family in text_string_to_metric_families(text(read(STATISTICS))) for sample in family.samples
    }
    documented = re.findall(r"`([a-z_]+)(?:\{[^`]*\})?`(?=[^|]*\|$)", statistics_tables(), re.MULTILINE)
    made = {re.sub(r"_(bucket|count|sum)$", "", name.removeprefix("deferfs_")) for name in found} - {"mount_info"}
    assert set(documented) == made


def test_histograms_are_cumulative_and_in_seconds() -> None:
    found = samples(text(read(STATISTICS)))
    buckets = {float(labels[0]): value for labels, value in found["deferfs_gc_inactivation_seconds_bucket"].items()}
    assert buckets[4.096e-06] == 1001
    assert buckets[1.6384e-05] == buckets[float("inf")] == 1011
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["deferfs_gc_inactivation_seconds_count"][()] == 1011
    assert found["deferfs_gc_inactivation_seconds_sum"][()] == 1
    assert found["deferfs_request_seconds_count"][("create",)] == 1


def test_a_name_cannot_break_the_format() -> None:
    evil = 'a"b\\c\nd'
    found = text(read({**STATISTICS, "mountpoint": evil, "image": evil}))
    labels = [sample.labels for family in text_string_to_metric_families(found) for sample in family.samples]
    assert {label["mountpoint"] for label in labels} == {'a"b\\c\\nd'}


@pytest.mark.mounted
def test_metrics_of_a_mount(mounted: Path, program: Command) -> None:
    (mounted / "file").write_text("content")
    with (mounted / "file").open():  # the kernel may forget a file that is closed
        outcome = program("stat", mounted, "--prometheus")
    assert outcome.code == 0
    found = samples(outcome.out)
    assert found["deferfs_request_seconds_count"][("create",)] == 1
    assert found["deferfs_inodes"][("active",)] >= 1


@pytest.mark.mounted
def test_served_by_http_until_unmounted(mounted: Path, program: Command) -> None:
    code = "from deferfs.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, "stat", mounted, "--prometheus", "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of_the_program(),
    ) as exporter:
        assert exporter.stderr is not None
        line = exporter.stderr.readline()
        url = line.split()[-1]
        assert url.startswith("http://127.0.0.1:")
        for number in range(2):
            (mounted / f"file{number}").touch()
            with urllib.request.urlopen(url, timeout=60) as answer:
                found = samples(answer.read().decode())
            assert found["deferfs_request_seconds_count"][("create",)] == number + 1
        assert program("umount", mounted).code == 0
        _, err = exporter.communicate(timeout=60)
    assert exporter.returncode == 1
    assert is_one_line(err)


@pytest.mark.mounted
@pytest.mark.parametrize(
    ("listen", "code"), [("nowhere", 2), ("127.0.0.1:port", 2), ("127.0.0.1:99999", 2), ("192.0.2.1:1", 1)]
)
def test_metrics_where_the_port_cannot_be_opened(listen: str, code: int, mounted: Path, program: Command) -> None:
    outcome = program("stat", mounted, "--prometheus", "--listen", listen)
    assert outcome.code == code
    assert is_one_line(outcome.err)


def test_metrics_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    from deferfs.cli.exporter import metrics_text
    from deferfs.errors import EnvironmentProblem

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(EnvironmentProblem, match=re.escape("pip install 'deferfs[metrics]'")):
        metrics_text(read(STATISTICS))
