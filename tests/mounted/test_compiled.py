"""Both builds are the same program: the daemon says which one it is."""

import pytest

from tests.installed import is_compiled
from tests.mounted.scratch import Scratch

pytestmark = pytest.mark.mounted


def test_the_daemon_says_whether_its_core_is_compiled(plain: Scratch) -> None:
    plain.mount()
    assert plain.statistics().compiled is is_compiled()
    plain.unmount_and_check()
