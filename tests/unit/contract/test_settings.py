"""The table of settings against what parses, what carries out, and what is shown."""

import dataclasses
from typing import Any

import pytest

from deferfs.contract.setting import Setting
from deferfs.contract.settings import ACTIONS, EVICT, LIVE, OPTIONS, SETTINGS, SYNC
from deferfs.mount.control.settings import CHANGES
from deferfs.mount.control.statistics import snapshot
from deferfs.mount.host.options import KERNEL_FLAGS, MountOptions
from tests.unit.runtimes import SERVED, running


def ids(setting: Setting[Any]) -> str:
    return setting.key


def test_keys_are_unique_and_every_setting_is_for_something() -> None:
    assert len({setting.key for setting in SETTINGS}) == len(SETTINGS)
    assert set(SETTINGS) == set(OPTIONS.values()) | set(LIVE.values())
    assert set(LIVE.values()) >= ACTIONS
    assert not set(OPTIONS) & set(KERNEL_FLAGS)


def test_every_live_setting_is_carried_out_and_nothing_else() -> None:
    assert set(CHANGES) == set(LIVE) - {SYNC.key}


def test_every_option_has_its_field_and_its_default() -> None:
    fields = {field.name for field in dataclasses.fields(MountOptions)}
    assert {setting.field for setting in OPTIONS.values()} == fields - {"flags"}
    for setting in OPTIONS.values():
        assert getattr(MountOptions(), setting.field) == setting.default, setting.key


@pytest.mark.parametrize("setting", SETTINGS, ids=ids)
def test_help_fits_a_line_of_plain_text(setting: Setting[Any]) -> None:
    assert setting.help
    assert len(setting.help) <= 70
    assert not set("[`") & set(setting.help)
    assert not setting.help.endswith(".")


@pytest.mark.parametrize(
    "setting",
    [one for one in SETTINGS if one.default is not None and one.value.form and one not in ACTIONS],
    ids=ids,
)
def test_a_default_is_a_value_as_it_is_written(setting: Setting[Any]) -> None:
    text = setting.value.text(setting.default)
    assert setting.value.parse(text) == setting.default
    assert setting.default_text in (text, setting.default_words)


async def test_defaults_are_those_of_a_fresh_mount() -> None:
    async with running() as runtime:
        found = snapshot(runtime, SERVED)
        drain, lifetime = runtime.closing.drain_seconds, runtime.engine.eviction.lifetime_seconds
    at_start = {
        "gc_in_core": found.gc.in_core_max,
        "gc_delay": found.gc.delay_seconds,
        "gc_rate": found.gc.rate,
        "background_reclaim": found.memory.background_reclaim,
        "throttle_inodes": found.throttle.inodes,
        "throttle_bytes": found.throttle.bytes,
        "throttle_extents": found.throttle.extents,
        "throttle_age": found.throttle.age_seconds,
        "throttle_deadline": found.throttle.deadline_seconds,
        "preallocation_lifetime": lifetime,
        "drain": drain,
        "freeze_limit": found.freeze.limit_seconds,
    }
    assert at_start == {key: LIVE[key].default for key in at_start}
    told_otherwise = {"commit", "gc_workers", "poll", "memory", EVICT.key}  # a mount is given these
    assert set(at_start) | told_otherwise == {one.key for one in LIVE.values() if one not in ACTIONS}
