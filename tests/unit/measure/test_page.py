import re
from xml.etree import ElementTree as ET

import msgspec
import pytest

from deferfs.measure.page import render_page
from tests.unit.measure.reports import report, run


@pytest.fixture
def page() -> str:
    return render_page(report())


def test_the_page_needs_nothing_else(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=|@import|url\(""", page)


def test_every_plot_is_well_formed(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for plot in plots:
        ET.fromstring(plot)
    assert sum("Response times:" in plot for plot in plots) == 2
    assert sum("Ratios" in plot for plot in plots) == 2


def test_text_is_escaped(page: str) -> None:
    assert "a &lt;note&gt;" in page


def test_a_target_without_modes_has_no_control_section() -> None:
    runs = [run(mode, 1, 1000) for mode in ("as-mounted", "none")]
    plain = report(runs)
    settings = msgspec.structs.replace(plain.settings, baseline="as-mounted", candidate="none")
    text = render_page(msgspec.structs.replace(plain, settings=settings))
    assert "as-mounted against none" in text
    assert "is from having nothing to clean up" not in text
