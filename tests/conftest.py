"""What all tests share: options, example profiles, what mounting needs, and the sweep after a
test that mounts.
"""

import gc
import itertools
import os
import secrets
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from deferfs.store.space import FreeSpace
from tests import examples, preloaded, programs, side_by_side
from tests.installed import IS_IMPORTED, is_compiled, require_up_to_date

settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "fresh",
    settings.get_profile("fixed"),
    derandomize=False,
    print_blob=True,
)

DAEMON_EXIT_SECONDS_MAX = 10
"""How long a daemon may take to end after its unmount, before it counts as left over."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")
    parser.addoption(
        "--fresh",
        action="store_true",
        help="draw new examples for the property tests and print the seed to repeat them with",
    )
    parser.addoption(
        "--explore-seed",
        type=int,
        metavar="N",
        help="explore crashes with fresh seeds from this one on",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if IS_IMPORTED:
        require_up_to_date()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell that starts the tests in the background ignores it; the programs that they start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    fresh = config.getoption("--fresh")
    examples.draw_all(fresh or config.getoption("--long"))
    profile = settings.get_profile("fresh" if fresh else "fixed")
    settings.register_profile("counted", profile, max_examples=examples.examples(100))
    settings.load_profile("counted")
    if fresh and config.option.hypothesis_seed is None:
        # The hypothesis plugin reads it in its own pytest_configure; xdist hands it to the workers.
        config.option.hypothesis_seed = str(secrets.randbits(32))
    if not hasattr(config.option, "explores_fresh_seeds"):  # a worker of xdist has the options of its controller
        config.option.explores_fresh_seeds = fresh or config.option.long or config.option.explore_seed is not None
    if config.option.explore_seed is None:
        config.option.explore_seed = secrets.randbits(32)
    side_by_side.join(config, Path(config.option.basetemp).parent if is_one_of_several(config) else None)


def is_one_of_several(config: pytest.Config) -> bool:
    """Whether this is a worker of xdist; their temporary directories are beside each other."""
    return hasattr(config, "workerinput")


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    if config.option.explores_fresh_seeds:
        lines.append(f"fresh crash explorations: repeat with --explore-seed={config.option.explore_seed}")
    if config.getoption("--fresh"):
        seed = config.option.hypothesis_seed
        lines.append(f"property tests: repeat with --fresh --hypothesis-seed={seed}")
    lines.append(f"the tests import {'the installed package' if IS_IMPORTED else 'the sources'}")
    lines.append(f"tests that mount: the core of the daemon is {'compiled' if is_compiled() else 'plain Python'}")
    if reason := why_no_mount():
        lines.append(f"tests that mount are skipped: {reason}")
    return lines


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of tests by their marks alone, in several processes, imports no module that has none of them."""
    marks = config.option.markexpr.split(" or ")
    if not {"mounted", "compiled"}.issuperset(marks) or not collection_path.name.startswith("test_"):
        return None
    if collection_path.suffix != ".py":
        return None
    text = collection_path.read_text()
    return None if any(mark in text for mark in marks) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_mount = why_no_mount()
    for item in items:
        if no_mount and item.get_closest_marker("mounted"):
            item.add_marker(pytest.mark.skip(reason=no_mount))
        if not config.getoption("--long") and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --long"))
    if is_one_of_several(config):
        side_by_side.put_in_order(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests have been collected, which live to the end: each full collection of garbage would look at all
    of them again, and some tests collect after every step."""
    gc.collect()
    gc.freeze()


def why_no_mount() -> str:
    """Why nothing can be mounted here, or an empty string."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"needs /dev/fuse: {error.strerror}"
    return ""


# --- what always holds ---


@pytest.fixture(autouse=True, scope="session")
def free_space_adds_up() -> Iterator[None]:
    """After each release of blocks, in any test of the sources, the counts of free space are those of its maps. What is
    compiled cannot be patched."""
    if IS_IMPORTED and is_compiled():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        release = FreeSpace.release

        def release_and_check(space: FreeSpace, runs: list[tuple[int, int]]) -> None:
            release(space, runs)
            space.check()

        patch.setattr(FreeSpace, "release", release_and_check)
        yield


# --- the programs that a test finds ---

_shelf = pytest.StashKey[programs.Shelf]()
_outer_path = pytest.StashKey[str]()
_home = pytest.StashKey[Path]()


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    config.stash[_outer_path] = os.environ["PATH"]
    config.stash[_home] = Path(tempfile.mkdtemp(prefix="deferfs-programs-"))
    config.stash[_home].chmod(0o755)
    rows = programs.read(programs.TABLE.read_text())
    config.stash[_shelf] = programs.Shelf(config.stash[_home] / "shelf", rows, os.environ["PATH"])


def pytest_sessionfinish(session: pytest.Session) -> None:
    preloaded.close()
    os.environ["PATH"] = session.config.stash[_outer_path]
    shutil.rmtree(session.config.stash[_home])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A hook and not a fixture: fixtures of wider scope, which start programs too, come before those of a test. Called
    after the tests that are skipped have been: nothing is asked of what they would need."""
    needed = [program for mark in item.iter_markers("needs") for program in mark.args]
    try:
        os.environ["PATH"] = item.config.stash[_shelf].path(dict.fromkeys(needed))
    except LookupError as error:
        pytest.fail(str(error), pytrace=False)


# --- the sweep ---

_serial = itertools.count()


@pytest.fixture(autouse=True)
def sweep(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Fail a test marked `mounted` that leaves a mount, a loop device or a process; clear it away.

    Mounts and loop devices count when they are below the temporary directories of this run and were
    not there before the test; a loop device by its image, as a filesystem that a test of the module mounts again may
    get another device. Processes are those that inherited an environment variable that only
    this test has set. So what other programs on the machine do meanwhile is never touched.
    """
    if request.node.get_closest_marker("mounted") is None:
        yield
        return
    mark = f"{os.getpid()}-{next(_serial)}"
    monkeypatch.setenv(preloaded.MARK, mark)
    base = tmp_path_factory.getbasetemp().resolve()
    mounts, images = set(_mounts(base)), Counter(_loop_devices(base).values())
    yield
    left = []
    for point in _mounts(base):
        if point not in mounts:
            left.append(f"mount {point}")
            _unmount(point)
    for pid in _processes(_marks(mark)):
        left.append(f"process {pid}")
        _end(pid)
    for device, image in _loop_devices(base).items():
        images[image] -= 1
        if images[image] < 0:
            left.append(f"loop device {device}")
            _detach(device)
    if left:
        pytest.fail(f"the test left behind: {', '.join(left)}", pytrace=False)


def _mounts(base: Path) -> list[str]:
    """FUSE mounts below `base`, the newest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        if after.startswith("fuse") and Path(point).is_relative_to(base):
            found.append(point)
    return found[::-1]


def _unmount(point: str) -> None:
    subprocess.run(["umount", "--lazy", point], check=False)


def _marks(mark: str) -> dict[bytes, int | None]:
    """What the environment of a process that this test has started has in it, by itself or preloaded, and the one
    process that may stay."""
    found = {mark: None, preloaded.mark(): preloaded.pid()}
    return {f"{preloaded.MARK}={one}".encode(): pid for one, pid in found.items()}


def _processes(marks: dict[bytes, int | None]) -> list[int]:
    """Living processes with one of these marks in their environment, once they had the time to end."""
    deadline = time.monotonic() + DAEMON_EXIT_SECONDS_MAX
    alive = []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if any(mark in marks and marks[mark] != pid for mark in _environment(pid)):
                left = max(0.0, deadline - time.monotonic())
                if not select.select([descriptor], [], [], left)[0]:
                    alive.append(pid)
        finally:
            os.close(descriptor)
    return alive


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _loop_devices(base: Path) -> dict[str, str]:
    """The image behind each loop device, of those whose image is below `base`."""
    found = {}
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            image = backing.read_text().strip()
        except OSError:  # detached meanwhile
            continue
        if Path(image.removesuffix(" (deleted)")).is_relative_to(base):
            found[f"/dev/{backing.parts[-3]}"] = image
    return found


def _detach(device: str) -> None:
    subprocess.run(["losetup", "--detach", device], check=False)
