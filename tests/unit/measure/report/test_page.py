import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from deferfs.measure.report.page import render_page
from deferfs.measure.results import Report
from tests.unit.measure.fakes import Fake, HeavyLoad, report


@pytest.fixture
def found(tmp_path: Path) -> Report:
    return report(tmp_path, Fake(killed=("ext4",)))


@pytest.fixture
def page(found: Report) -> str:
    return render_page(found)


def test_the_page_needs_nothing_else(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"""src=|@import|url\(|href=(?!"data:)""", page)


def test_the_sentences_are_on_top_of_the_pictures(page: str) -> None:
    assert page.index("48 passes of &lt;nothing&gt;.") < page.index("An operation that needed") < page.index("<figure")


def test_every_plot_is_well_formed_and_tells_its_pairs(page: str, found: Report) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 8  # four sides, two loops
    for plot in plots:
        root = ET.fromstring(plot)
        titles = [element.text or "" for element in root.iter("title")]
        assert [title.partition(":")[0] for title in titles[-1:]] == ["all pairs"]
        assert {title.partition(":")[0] for title in titles[:-1]} == {f"pair {number}" for number in range(1, 7)}


def test_every_ratio_is_text(page: str, found: Report) -> None:
    table = page[page.index("<caption>Every ratio") :]
    table = table[: table.index("</table>")]
    assert table.count('data-l="verdict"') == sum(one.ratio is not None for one in found.results[0].comparisons)


def test_the_longest_wait_of_each_side_is_at_a_glance(page: str) -> None:
    glance = page[: page.index("</figure>")]
    assert glance.count('class="bar"') == 4
    assert "logarithmic" in glance and "OOM-killed 12 of 12" in glance
    assert 'title="deferfs, inline, pair 1: ' in glance


def test_deferred_faster_is_always_to_the_right(found: Report, tmp_path: Path) -> None:
    for slower, right in (({"inline": 3.0}, True), ({"deferred": 3.0}, False)):
        page = render_page(report(tmp_path, Fake(slower=slower)))
        rows = re.findall(r"inline/deferred</span>.*?dot\" style=\"left: ([\d.]+)%", page, re.DOTALL)
        assert rows and all((float(place) > 50) == right for place in rows)


def test_a_busy_machine_gets_no_colour(tmp_path: Path) -> None:
    page = render_page(report(tmp_path, load=HeavyLoad))
    assert "Machine too busy" in page
    assert 'class="track right"' not in page and 'class="track left"' not in page


def test_a_report_without_passes_is_a_page_too(tmp_path: Path) -> None:
    lacking = dict.fromkeys(("inline", "deferred", "floor", "ext4"), "not root")
    assert "not root" in render_page(report(tmp_path, Fake(lacking=lacking)))


def test_an_aa_run_is_a_page_too(tmp_path: Path) -> None:
    assert "One side against itself" in render_page(report(tmp_path, aa=True))
