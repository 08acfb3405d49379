"""House rules of the core, which is compiled by mypyc; see test_tidy.py."""

import ast
import re
from pathlib import Path

from tests.source_tree import CORE, modules, package_of

IDENTITIES = {
    ("deferfs/reclaim/lockdep.py", "held is innermost"): "frames of what a task holds",
    ("deferfs/store/journal.py", "committing.images.get(address) is entry.obj"): "decoded blocks",
    ("deferfs/store/journal.py", "entry.obj is not obj"): "decoded blocks",
    ("deferfs/store/journal.py", "home[1] is entry.obj"): "decoded blocks, not the pairs that they are in",
    ("deferfs/store/journal.py", "newest[1] is image[1]"): "decoded blocks, not the pairs that they are in",
    ("deferfs/volume/namespace.py", "old is not new"): "staged records of inodes",
}
"""Comparisons by identity of two values that are objects, and what they are."""
_CLASS = re.compile(r"[A-Z]\w*[a-z]\w*")


def handlers_have_names_of_their_own(root: Path) -> list[str]:
    """In the core, which is compiled, a function does not give one name to exceptions of different types.

    mypyc takes the first type for that of the variable, and fails when another comes.
    """
    problems = []
    for path, tree in modules(root, "deferfs"):
        if package_of(path) not in CORE:
            continue
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            handlers = [node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler) and node.type]
            types: dict[str | None, str] = {}
            for handler in handlers:
                kind = ast.unparse(handler.type) if handler.type else ""
                if handler.name and types.setdefault(handler.name, kind) != kind:
                    problems.append(f"{path}:{handler.lineno}: {handler.name} is also a {types[handler.name]}")
    return problems


def _has_identity(node: ast.expr) -> bool:
    """None, True, False, a class, a member of a class, or what type() returns."""
    if isinstance(node, ast.Constant):
        return node.value is None or isinstance(node.value, bool)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "type"
    if isinstance(node, ast.Attribute):
        above = node.value.attr if isinstance(node.value, ast.Attribute) else ast.unparse(node.value)
        return bool(_CLASS.fullmatch(above) or _CLASS.fullmatch(node.attr))
    return isinstance(node, ast.Name) and bool(_CLASS.fullmatch(node.id))


def identity_is_for_objects(root: Path) -> list[str]:
    """In the core `is` compares with None, True, False, a class or a member of one; two other values
    only where IDENTITIES says that they are objects.

    mypyc unpacks tuples, integers, floats and truth values: such a value is another object each time it is looked at.
    """
    problems = []
    for path, tree in modules(root, "deferfs"):
        if package_of(path) not in CORE:
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Compare):
                continue
            operands = [node.left, *node.comparators]
            for one, operator, other in zip(operands, node.ops, operands[1:], strict=False):
                text = ast.unparse(ast.Compare(one, [operator], [other]))
                if not isinstance(operator, ast.Is | ast.IsNot) or (path, text) in IDENTITIES:
                    continue
                if not (_has_identity(one) or _has_identity(other)):
                    problems.append(f"{path}:{node.lineno}: {text}: are they objects in compiled code?")
    return problems
