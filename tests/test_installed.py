"""What the two steps of tests/run import."""

from __future__ import annotations

import pytest

from deferfs.store import plan
from tests.installed import IS_IMPORTED, is_compiled

pytestmark = pytest.mark.compiled


def test_the_core_is_that_of_the_package_which_is_imported() -> None:
    assert plan.__file__.endswith(".so") is (IS_IMPORTED and is_compiled())


def test_a_run_of_what_is_marked_as_compiled_imports_the_installed_package(pytestconfig: pytest.Config) -> None:
    if "or compiled" not in pytestconfig.option.markexpr:
        pytest.skip("another run, which may import the sources")
    assert IS_IMPORTED
