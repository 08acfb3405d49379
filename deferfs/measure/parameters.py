"""`--set NAME=VALUE`: parameters of a scenario from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import msgspec

from deferfs.errors import UsageError
from deferfs.measure.scenario import Scenario


def make_parameters(scenario: Scenario, settings: Iterable[str]) -> msgspec.Struct:
    """The parameters of a short run, changed by `settings`. UsageError that lists the existing parameters."""
    defaults = scenario.parameters()
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting}: write it as NAME=VALUE")
        known = {field.name: field for field in msgspec.structs.fields(scenario.parameters)}
        if name not in known:
            there = ", ".join(known) or "no parameters"
            raise UsageError(
                f"--set {setting}: the scenario {scenario.name} has no parameter {name}; there are {there}"
            )
        values[name] = _value(scenario.name, setting, known[name].type, text)
    return msgspec.structs.replace(defaults, **values)


def has_parameter(scenario: Scenario, name: str) -> bool:
    """Whether the scenario has a parameter of this name."""
    return any(field.name == name for field in msgspec.structs.fields(scenario.parameters))


def _value(scenario: str, setting: str, kind: Any, text: str) -> Any:
    """Convert `text` to the type of the field; commas separate the items of a tuple or list."""
    plural = any(getattr(part, "__origin__", part) in (tuple, list) for part in (kind, *get_args(kind)))
    try:
        return msgspec.convert(text.split(",") if plural else text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"--set {setting}: {scenario}: {str(error)[:1].lower()}{str(error)[1:]}") from None
