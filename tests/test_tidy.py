"""The house rules that no linter knows. Each rule gives a list of problems, and is shown to find
a planted one.
"""

import ast
import gc
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

import pytest

from tests.compiled_core import IDENTITIES, handlers_have_names_of_their_own, identity_is_for_objects
from tests.source_tree import CORE, files, imports, modules, package_of, parsed, texts

ROOT = Path(__file__).resolve().parents[1]

LINES_PER_MODULE_MAX = 450
LINES_PER_FUNCTION_MAX = 70

FOR_ALL = {"errors", "limits", "printable", "units"}
"""Modules at the top of the package that the core imports, too."""

NOT_BELOW_MOUNT = {
    "anyio",
    "asyncio",
    "concurrent",
    "datetime",
    "multiprocessing",
    "pyfuse3",
    "random",
    "secrets",
    "threading",
    "time",
    "trio",
}
"""The core never waits, never knows the hour and never throws dice: these are passed in."""

_MACHINE_DIRECTORIES = ("home/", "root/", "work/", "Users/", "tmp/plan", "tmp/v/")
_MACHINE_PATH = re.compile(rf"(?<![\w.\]}})~*-])/(?:{'|'.join(_MACHINE_DIRECTORIES)})")
_UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")


@pytest.fixture(scope="module", autouse=True)
def the_trees_are_kept() -> Iterator[None]:
    """Until all rules have seen them: parsing takes the most time. The collector would search them again and again."""
    gc.disable()
    yield
    parsed.cache_clear()
    gc.enable()


# --- the rules ---


def core_is_synchronous(root: Path) -> list[str]:
    """Nothing below mount/ is async, sleeps, or reads a clock."""
    problems = []
    for path, tree in modules(root, "deferfs"):
        if package_of(path) not in CORE | FOR_ALL:
            continue
        for line, name in imports(tree):
            if name.partition(".")[0] in NOT_BELOW_MOUNT:
                problems.append(f"{path}:{line}: {name} has no place below mount/")
        for node in ast.walk(tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                problems.append(f"{path}:{node.lineno}: async has no place below mount/")
    return problems


_OF_THE_SYSTEM = re.compile(r"/(?:proc|sys|dev|run)\b")


def runtime_asks_no_system(root: Path) -> list[str]:
    """mount/runtime/ reads nothing of /proc and the like: what it has to know of Linux is passed in."""
    return [
        f"{path}:{node.lineno}: {node.value}: mount/host/ asks the system"
        for path, tree in modules(root, "deferfs/mount/runtime")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _OF_THE_SYSTEM.match(node.value)
    ]


PRINTS = {
    "deferfs/cli/entry.py",
    "deferfs/cli/output.py",
    "deferfs/crash/reproducer.py",
    "deferfs/crash/other/disk_server.py",
}
"""The output module of the command line, and programs of their own."""
_PRINTING = re.compile(r"(?:click\.(?:echo|secho|confirm|prompt)|(?:sys\.)?std(?:out|err)\.write|logging\.Formatter)$")


def names_are_printed_by_the_output_module(root: Path) -> list[str]:
    """What commands print, and what is logged, passes the modules that escape what others chose."""
    return [
        f"{path}:{node.lineno}: {ast.unparse(node.func)}: print through deferfs.cli.output"
        for path, tree in modules(root, "deferfs")
        if path not in PRINTS
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _PRINTING.match(ast.unparse(node.func))
    ]


def sizes(root: Path) -> list[str]:
    """Modules are short, and functions fit on a screen."""
    problems = []
    for path, tree in modules(root, "deferfs", "tests", "bench"):
        lines = len((root / path).read_text().splitlines())
        if lines > LINES_PER_MODULE_MAX:
            problems.append(f"{path}: {lines} lines; split it by what its parts know")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_PER_FUNCTION_MAX:
                    problems.append(f"{path}:{node.lineno}: {node.name} has {lines} lines")
    return problems


def nothing_unfinished(root: Path) -> list[str]:
    """Open ends belong into the issue tracker, not into the tree."""
    return [
        f"{path}:{number}: {found.group()}"
        for path, text in texts(root)
        for number, line in enumerate(text.splitlines(), 1)
        if (found := _UNFINISHED.search(line))
    ]


def no_machine_paths(root: Path) -> list[str]:
    """No file names a directory of the machine it was written on."""
    return [
        f"{path}:{number}: {found.group()}"
        for path, text in texts(root)
        for number, line in enumerate(text.splitlines(), 1)
        if (found := _MACHINE_PATH.search(line))
    ]


def packages_say_what_they_are(root: Path) -> list[str]:
    """Every package has an __init__.py with a docstring."""
    problems = []
    for folder in sorted({path.parent for path in files(root / "deferfs") if path.suffix == ".py"}):
        init = folder / "__init__.py"
        if not init.exists():
            problems.append(f"{folder.relative_to(root)}: no __init__.py")
        elif not ast.get_docstring(ast.parse(init.read_text())):
            problems.append(f"{init.relative_to(root)}: no docstring")
    return problems


def unit_tests_mirror_the_package(root: Path) -> list[str]:
    """tests/unit/A/test_B.py or test_B_TOPIC.py tests deferfs/A/B; every package of the core has
    tests.
    """
    problems = []
    unit = root / "tests" / "unit"
    for path in files(unit):
        if not path.name.startswith("test_") or path.suffix != ".py":
            continue
        words = path.stem.split("_")[1:]
        candidates = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
        folder = root / "deferfs" / path.parent.relative_to(unit)
        if not any((folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists() for name in candidates):
            problems.append(f"{path.relative_to(root)}: tests no module of {folder.name}/")
    for package in sorted(CORE):
        if (root / "deferfs" / package).is_dir() and not list((unit / package).glob("**/test_*.py")):
            problems.append(f"deferfs/{package}: no tests in tests/unit/{package}")
    return problems


def no_test_module_is_a_library(root: Path) -> list[str]:
    """What several test modules use is in a module without tests."""
    return [
        f"{path}:{line}: imports from {name}: move what is shared to a module without tests"
        for path, tree in modules(root, "tests")
        for line, name in imports(tree)
        if name.startswith("tests.") and name.rpartition(".")[2].startswith("test_")
    ]


def readme_commands_work(root: Path) -> list[str]:
    """The two commands of the README, and every other script it names, are executable files."""
    text = (root / "README.md").read_text()
    named = set(re.findall(r"(?<![\w/.])(?:\./)?((?:bench|tests|\.ci)/[a-z][a-z-]*)\b(?![./\w])", text))
    problems = [f"README.md: does not name {command}" for command in ("bench/run", "tests/run") if command not in named]
    for command in sorted(named):
        path = root / command
        if path.is_dir():
            continue
        if not (path.is_file() and os.access(path, os.X_OK)):
            problems.append(f"README.md: {command} is not an executable file")
    examples = "".join(re.findall(r"^```\n.*?^```", text, re.MULTILINE | re.DOTALL))
    for command in re.findall(r"^(?:sudo )?deferfs ([a-z]+)", examples, re.MULTILINE):
        if not (root / "deferfs" / "cli" / f"{command}.py").exists():
            problems.append(f"README.md: there is no command deferfs {command}")
    return problems


def links_lead_somewhere(root: Path) -> list[str]:
    """Relative links in Markdown files lead to files of the tree, and to headings that they have; those of a page of
    the site to pages of it (of the files above `docs/` it has the changelog)."""
    problems = []
    for path, text in texts(root):
        if not path.endswith(".md"):
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, heading = target.partition("#")
            if "://" in name:
                continue
            file = (root / path).parent / name if name else root / path
            if not file.exists() or (heading and heading not in anchors(file.read_text())):
                problems.append(f"{path}: {target} does not exist")
            elif path.startswith("docs/") and not is_on_the_site(root, file):
                problems.append(f"{path}: {target} is not on the site")
    return problems


def is_on_the_site(root: Path, file: Path) -> bool:
    """Whether the documentation, as a site, has this file."""
    found = file.resolve().relative_to(root.resolve())
    return found.parts[0] == "docs" or found == Path("CHANGELOG.md")


def anchors(markdown: str) -> set[str]:
    """What the headings of a page are called in links."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


RULES: list[Callable[[Path], list[str]]] = [
    core_is_synchronous,
    runtime_asks_no_system,
    names_are_printed_by_the_output_module,
    handlers_have_names_of_their_own,
    identity_is_for_objects,
    sizes,
    nothing_unfinished,
    no_machine_paths,
    packages_say_what_they_are,
    unit_tests_mirror_the_package,
    no_test_module_is_a_library,
    readme_commands_work,
    links_lead_somewhere,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    problems = rule(ROOT)
    assert not problems, "\n".join(problems)


# --- each rule finds what it is there for ---

TIDY = {
    "README.md": "Run `bench/run` or `tests/run`. See [the docs](docs/a.md#b).\n",
    "docs/a.md": "# B\n",
    "bench/run": "#!/bin/sh\n",
    "tests/run": "#!/bin/sh\n",
    "deferfs/__init__.py": '"""A package."""\n',
    "deferfs/errors.py": "import errno\n",
    "deferfs/device/__init__.py": '"""Devices."""\n',
    "deferfs/device/file.py": "from deferfs.errors import DeviceError\n",
    "deferfs/mount/__init__.py": '"""Mounting."""\n',
    "deferfs/mount/runtime/__init__.py": '"""What waits."""\n',
    "deferfs/mount/session.py": "import trio\nasync def main(): await trio.sleep(1)\n",
    "tests/unit/device/test_file.py": "from deferfs.device import file\n",
}
"""A small tree that keeps every rule."""

_HANDLERS = "def f():\n try: g()\n except A as e: pass\n except B as e: pass"
_FUNCTION = "def f():\n" + "    pass\n" * LINES_PER_FUNCTION_MAX

PLANTED: list[tuple[Callable[[Path], list[str]], str, str, str]] = [
    (core_is_synchronous, "deferfs/device/b.py", "import trio", "trio has no place"),
    (core_is_synchronous, "deferfs/store/b.py", "from time import time_ns", "time has no place"),
    (core_is_synchronous, "deferfs/ondisk/b.py", "import random", "random has no place"),
    (core_is_synchronous, "deferfs/volume/b.py", "import concurrent.futures", "concurrent.futures"),
    (core_is_synchronous, "deferfs/reclaim/b.py", "async def f(): pass", "async has no place"),
    (core_is_synchronous, "deferfs/limits.py", "import threading", "threading has no place"),
    (runtime_asks_no_system, "deferfs/mount/runtime/b.py", "def f(): return open('/proc/self/status')", "asks the sys"),
    (names_are_printed_by_the_output_module, "deferfs/cli/b.py", "import click\nclick.echo('a')", "b.py:2: click.echo"),
    (names_are_printed_by_the_output_module, "deferfs/cli/b.py", "import sys\nsys.stderr.write('a')", "stderr.write"),
    (handlers_have_names_of_their_own, "deferfs/store/b.py", _HANDLERS, "e is also a A"),
    (identity_is_for_objects, "deferfs/store/b.py", "def f(a, b): return a is b", "b.py:1: a is b"),
    (identity_is_for_objects, "deferfs/ondisk/b.py", "def f(a): return a.pair is not a.other", "a.pair is not a.other"),
    (identity_is_for_objects, "deferfs/volume/b.py", "def f(a): return a is LIMIT", "a is LIMIT"),
    (identity_is_for_objects, "deferfs/reclaim/b.py", "def f(a): return None is a is a[0]", "a is a[0]"),
    (identity_is_for_objects, "deferfs/store/b.py", "def f(a): return a is 5", "a is 5"),
    (sizes, "deferfs/mount/b.py", "\n" * (LINES_PER_MODULE_MAX + 1), "451 lines"),
    (sizes, "tests/b.py", _FUNCTION, "f has 71 lines"),
    (sizes, "bench/b.py", "class A:\n" + indent(_FUNCTION, " "), "f has 71"),
    (nothing_unfinished, "deferfs/device/b.py", "# TO" + "DO: later", "b.py:1"),
    (nothing_unfinished, "docs/b.md", "One.\nFIX" + "ME\n", "b.md:2"),
    (no_machine_paths, "bench/b.sh", "cd /ho" + "me/me", "b.sh:1"),
    (no_machine_paths, ".ci/run", "x=1\ncd /wo" + "rk/main", "run:2"),
    (packages_say_what_they_are, "deferfs/cli/main.py", "", "deferfs/cli: no __init__"),
    (packages_say_what_they_are, "deferfs/mount/__init__.py", "x = 1", "no docstring"),
    (unit_tests_mirror_the_package, "tests/unit/device/test_gone.py", "", "test_gone.py"),
    (unit_tests_mirror_the_package, "tests/unit/test_file.py", "", "tests/unit/test_file.py"),
    (unit_tests_mirror_the_package, "deferfs/store/b.py", "", "no tests in tests/unit/store"),
    (no_test_module_is_a_library, "tests/cli/b.py", "from tests.unit.test_a import helper", "b.py:1: imports from"),
    (readme_commands_work, "README.md", "`bench/run`", "does not name tests/run"),
    (readme_commands_work, "README.md", "bench/run tests/run tests/gone", "tests/gone is not"),
    (
        readme_commands_work,
        "README.md",
        "bench/run tests/run\n```\ndeferfs gone\n```",
        "deferfs gone",
    ),
    (links_lead_somewhere, "README.md", "[a](docs/gone.md)", "docs/gone.md"),
    (links_lead_somewhere, "docs/a.md", "# B\n[a](README.md)", "README.md"),
    (links_lead_somewhere, "docs/b.md", "[a](a.md#c)", "a.md#c does not exist"),
    (links_lead_somewhere, "docs/b.md", "[a](../README.md)", "../README.md is not on the site"),
    (links_lead_somewhere, "docs/b.md", "# B\n```\n# c\n```\n[a](#c)", "#c does not exist"),
]


def plant(root: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.name == "run":
            path.chmod(0o755)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_tidy_tree_has_no_problems(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    plant(tmp_path, TIDY)
    assert rule(tmp_path) == []


@pytest.mark.parametrize(
    ("rule", "name", "text", "expected"), PLANTED, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_planted_problem_is_found(
    rule: Callable[[Path], list[str]], name: str, text: str, expected: str, tmp_path: Path
) -> None:
    plant(tmp_path, {**TIDY, name: text})
    (problem,) = rule(tmp_path)
    assert expected in problem


def test_a_command_of_the_readme_must_be_executable(tmp_path: Path) -> None:
    plant(tmp_path, TIDY)
    (tmp_path / "tests" / "run").chmod(0o644)
    assert readme_commands_work(tmp_path) == ["README.md: tests/run is not an executable file"]


def test_identity_with_what_has_one_is_no_problem(tmp_path: Path) -> None:
    text = "def f(a, kind): return (a is None, a is not True, a is State.LIVE, kind is m.Node, type(a) is kind)"
    plant(tmp_path, {**TIDY, "deferfs/store/b.py": text})
    assert "b.py" not in "".join(identity_is_for_objects(tmp_path))


def test_listed_files_exist() -> None:
    sources = {path: ast.unparse(tree) for path, tree in modules(ROOT, "deferfs")}
    assert not [(path, text) for path, text in IDENTITIES if text not in sources[path]]


def test_every_rule_has_a_planted_problem() -> None:
    assert {rule for rule, *_ in PLANTED} == set(RULES)
