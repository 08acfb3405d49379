import pytest

from deferfs.errors import UsageError
from deferfs.measure.parameters import has_parameter, make_parameters
from tests.unit.measure.fakes import Fake, Parameters


def test_without_settings_they_are_those_of_a_short_run() -> None:
    assert make_parameters(Fake(), []) == Parameters()


def test_a_setting_has_the_type_of_its_field() -> None:
    settings = ["inodes=7", "latency_ms=0.5", "budgets=1,2,3", "words=a=b"]
    assert make_parameters(Fake(), settings) == Parameters(7, 0.5, (1, 2, 3), "a=b")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("inodes", "--set inodes: write it as NAME=VALUE"),
        ("=3", "--set =3: write it as NAME=VALUE"),
        (
            "nodes=3",
            "--set nodes=3: the scenario fake has no parameter nodes; there are inodes, latency_ms, budgets, words",
        ),
        ("inodes=many", "--set inodes=many: fake: expected `int`, got `str`"),
        ("inodes=1.5", "--set inodes=1.5: fake: expected `int`, got `str`"),
    ],
)
def test_an_unknown_parameter_is_reported_in_one_line(setting: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_parameters(Fake(), [setting])
    assert str(caught.value) == said


def test_whether_there_is_a_parameter() -> None:
    assert has_parameter(Fake(), "inodes")
    assert not has_parameter(Fake(), "target")
