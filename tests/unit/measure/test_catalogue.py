import pytest

from deferfs.cli.bench import SUBCOMMANDS
from deferfs.cli.bench_run import PACKAGES
from deferfs.errors import UsageError
from deferfs.measure.catalogue import find, find_scenarios
from deferfs.measure.scenario import PERCENTILES, Scenario
from tests.unit.measure.fakes import Fake

SCENARIOS = find_scenarios(PACKAGES)


def test_a_scenario_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="no scenario gone; there are fake"):
        find("gone", {"fake": Fake()})


def test_no_scenario_has_the_name_of_a_command() -> None:
    assert SCENARIOS.keys().isdisjoint(SUBCOMMANDS)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_every_scenario_says_what_it_is(scenario: Scenario) -> None:
    parameters = scenario.parameters()
    sides = scenario.sides(parameters)
    assert scenario.mechanism.endswith(".") and "\n" not in scenario.mechanism
    assert len({side.name for side in sides}) == len(sides) > 0
    assert scenario.loops and {measure.loop for measure in scenario.measures} <= set(scenario.loops)
    assert {measure.statistic for measure in scenario.measures} <= {*PERCENTILES, "value"}
    assert scenario.pairs >= 1
    assert all(isinstance(point, scenario.parameters) for point in scenario.sweep(parameters))
    assert all("\n" not in scenario.missing(side, parameters) for side in sides)
