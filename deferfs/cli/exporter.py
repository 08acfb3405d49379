"""`deferfs stat --prometheus`: metrics as text, for node_exporter's textfile collector, or served by HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from deferfs.errors import ControlError, EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from deferfs.contract.statistics import Statistics
    from deferfs.mount.host.mountinfo import Mount

LOOK_SECONDS: Final = 2.0
"""How often to look whether the mount is still there."""


def metrics_text(statistics: Statistics) -> str:
    """The metrics of one moment. EnvironmentProblem without the library."""
    _require_library()
    from deferfs.cli import stat_metrics

    return stat_metrics.text(statistics)


def serve(mount: Mount, listen: str) -> None:
    """Answer scrapes on ADDRESS:PORT until the mount has gone, which ends in its ControlError."""
    _require_library()
    from prometheus_client import CollectorRegistry, start_http_server

    from deferfs.cli import output, stat_metrics
    from deferfs.contract.requests import GetState
    from deferfs.mount.control import client

    address, port = _parse(listen)
    registry = CollectorRegistry()
    registry.register(stat_metrics.MountCollector(lambda: client.statistics(mount)))
    client.find_daemon(mount)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise ControlError(f"{listen}: cannot listen there: {error.strerror or error}") from error
    bound = server.server_address
    output.tell(f"serving metrics of {mount.mountpoint} on http://{address}:{bound[1]}/metrics")
    try:
        while True:
            time.sleep(LOOK_SECONDS)
            client.ask(mount, GetState())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _parse(listen: str) -> tuple[str, int]:
    """`ADDRESS:PORT`, `[ADDRESS]:PORT` or `:PORT`, which is any address."""
    address, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen {listen}: must be ADDRESS:PORT")
    return address.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)


def _require_library() -> None:
    try:
        import prometheus_client  # noqa: F401  (is it there?)
    except ImportError as error:
        raise EnvironmentProblem("metrics need prometheus-client: pip install 'deferfs[metrics]'") from error
