"""Fixtures of the tests of mount/."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from deferfs.mount.host.options import parse_options
from tests.unit.mount.kernels import Kernel, make_runtime


@pytest.fixture(params=["deferred", "inline"])
async def kernel(request: Any) -> AsyncIterator[Kernel]:
    runtime = make_runtime(request.param)
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        yield Kernel(runtime, parse_options([f"evict={request.param}"]))
        await runtime.close()
        nursery.cancel_scope.cancel()
