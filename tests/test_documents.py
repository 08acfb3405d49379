"""The tables of docs/ are those of the code."""

import pytest

from tests.documents import COMMAND, DOCS, PARTS, pages, written


@pytest.mark.parametrize("page", pages())
def test_a_page_is_as_the_code_has_it(page: str) -> None:
    text = (DOCS / page).read_text()
    if text != written(page, text):
        pytest.fail(f"docs/{page} is not as the code has it: {COMMAND} writes it", pytrace=False)


@pytest.mark.parametrize("name", PARTS)
def test_a_changed_table_is_found(name: str) -> None:
    page, make = PARTS[name]
    text = written(page, (DOCS / page).read_text())
    line = make().splitlines()[-1]
    assert line in text
    changed = text.replace(line, line.replace("e", "x", 1), 1)
    assert changed != text
    assert written(page, changed) == text


@pytest.mark.parametrize("name", PARTS)
def test_a_page_without_the_place_of_a_table_is_refused(name: str) -> None:
    page, _ = PARTS[name]
    text = (DOCS / page).read_text()
    with pytest.raises(ValueError, match=f"no place for {name}"):
        written(page, text.replace(f"<!-- end {name} -->", ""))
