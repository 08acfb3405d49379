"""The file of a report: what it is checked against, and what is refused."""

from pathlib import Path

import jsonschema
import msgspec
import pytest

from deferfs.errors import UsageError
from deferfs.measure.results import SCHEMA, decode_report, encode_report, json_schema
from tests.unit.measure.fakes import Fake, report

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "benchmarking.md"


@pytest.mark.parametrize("aa", [False, True])
def test_a_report_keeps_its_schema(tmp_path: Path, aa: bool) -> None:
    found = report(tmp_path, Fake(lacking={"ext4": "not root"}, killed=("floor",)), pairs=2, aa=aa)
    jsonschema.validate(msgspec.json.decode(encode_report(found)), json_schema())


def test_the_schema_refuses_what_is_no_report(tmp_path: Path) -> None:
    broken = msgspec.json.decode(encode_report(report(tmp_path, pairs=1)))
    broken["results"][0]["passes"][0]["outcome"] = "lost"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json_schema())


@pytest.mark.parametrize("name", sorted(json_schema()["$defs"]))
def test_every_field_is_documented(name: str) -> None:
    """The section on the file names each field of each object."""
    text = DOCUMENTATION.read_text().partition("## The JSON file")[2]
    fields = json_schema()["$defs"][name].get("properties", {})
    assert [field for field in fields if f"`{field}`" not in text] == []
    assert SCHEMA in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "a.json: not JSON: "),
        ("[1]", "a.json: not a result of `deferfs bench --json`"),
        ('{"schema": 3}', "a.json: not a result of `deferfs bench --json`"),
        ('{"schema": "other/1"}', "a.json: not a result of `deferfs bench --json`"),
        ('{"schema": "deferfs-bench/1"}', "a.json: has the schema deferfs-bench/1; this version reads deferfs-bench/2"),
        ('{"schema": "deferfs-bench/2"}', "a.json: does not match its schema deferfs-bench/2: "),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode_report(text.encode(), "a.json")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
