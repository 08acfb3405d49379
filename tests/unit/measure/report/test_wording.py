import pytest

from deferfs.measure.report.wording import latency, size, spread
from deferfs.measure.stats.statistics import RatioSummary


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (950, "950 ns"),
        (1200, "1.20 us"),
        (82_800_000, "82.8 ms"),
        (999_700, "1.00 ms"),
        (1_050_000_000, "1.05 s"),
        (75_000_000_000, "75.0 s"),
    ],
)
def test_latencies(nanoseconds: float, text: str) -> None:
    assert latency(nanoseconds) == text


def test_a_spread_shows_the_least_and_the_most_pair() -> None:
    assert spread(RatioSummary([1.2, 3.4], 2.02, 1.2, 3.4)) == "2.02x (1.20-3.40)"
    assert spread(None) == "-"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (512, "512 B"), (48 << 20, "48.0 MiB"), (3 << 40, "3.00 TiB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
