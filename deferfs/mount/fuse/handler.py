"""The wrapper of every handler of a FUSE request: it measures the time, and turns exceptions into replies."""

from __future__ import annotations

import errno
import functools
import inspect
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import pyfuse3

from deferfs.errors import CorruptionError, FsError
from deferfs.mount.runtime.activity import Actor, set_caller

if TYPE_CHECKING:
    from deferfs.mount.fuse.anomalies import Anomalies
    from deferfs.mount.runtime.activity import Activity
    from deferfs.mount.runtime.waits import Timings


class Observed(Protocol):
    """The attributes that a class with handlers must have."""

    activity: Activity
    requests: Timings
    anomalies: Anomalies


H = TypeVar("H", bound=Observed)
P = ParamSpec("P")
T = TypeVar("T")
_log: Final = logging.getLogger(__name__)


def handler(
    function: Callable[Concatenate[H, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[H, P], Coroutine[Any, Any, T]]:
    """Time a handler, and let no exception but FUSEError leave it: any other would end the mount."""
    name = function.__name__
    actor = Actor(name)
    parameters = list(inspect.signature(function).parameters)
    at = parameters.index("ctx") - 1 if "ctx" in parameters else None
    """Index of the argument with the request's context; not all requests have one."""

    @functools.wraps(function)
    async def handle(self: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        start = time.perf_counter_ns()
        running = self.activity.begin(actor)
        set_caller(args[at].pid if at is not None and at < len(args) else 0)  # type: ignore[attr-defined]
        try:
            return await function(self, *args, **kwargs)
        except FsError as error:
            if isinstance(error, CorruptionError) or error.detail:
                _log.error("%s: %s", name, error)
            self.anomalies.note_stale(error)
            number = error.errno
        except OSError as error:
            _log.error("%s: %s", name, error)
            number = error.errno or errno.EIO
        except pyfuse3.FUSEError:
            raise
        except Exception:
            _log.exception("%s: internal error", name)
            number = errno.EIO
        finally:
            end = time.perf_counter_ns()
            self.requests.add(name, end - start)
            self.activity.end(running, start, end)
        raise pyfuse3.FUSEError(number)

    return handle
