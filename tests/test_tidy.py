"""Rules for the source that no linter has: sizes, docstrings, purity."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "overlay").rglob("*.py"))
CORE = [path for path in SOURCES if path.is_relative_to(ROOT / "overlay/core")]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 60
TEST_NAME_LENGTH_MAX = 60
# The core may not do these by itself: read clocks, draw random numbers, wait, communicate.
BANNED_IN_CORE = {"time", "datetime", "os", "secrets", "asyncio", "socket", "threading", "logging"}


def name_of(path: Path) -> str:
    """Return a path as failures show it."""
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return a file's syntax tree; each file is parsed once for all rules."""
    return ast.parse(path.read_text())


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_module_has_a_docstring() -> None:
    """A module begins with a docstring."""
    assert [name_of(path) for path in SOURCES if not ast.get_docstring(tree_of(path))] == []


def test_files_stay_small() -> None:
    """A file is short enough to read at once."""
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}

    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}


def test_functions_stay_small() -> None:
    """A function is short enough to read at once."""
    long = [
        f"{name_of(path)}: {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in SOURCES
        for node in functions(tree_of(path))
        if node.end_lineno is not None and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]

    assert long == []


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level packages that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_the_core_gets_time_and_randomness_as_arguments() -> None:
    """No core module imports a source of time, randomness, waiting or output."""
    banned = {name_of(path): BANNED_IN_CORE.intersection(imported(tree_of(path))) for path in CORE}

    assert {name: modules for name, modules in banned.items() if modules} == {}


def test_the_core_uses_only_the_given_random_generator() -> None:
    """`random.Random` is only a type there; no module function is called."""
    calls = [
        f"{name_of(path)}: random.{node.func.attr}"
        for path in CORE
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "random"
    ]

    assert calls == []


def test_every_test_states_its_fact() -> None:
    """Each test function has a docstring."""
    bare = [
        f"{name_of(path)}: {node.name}"
        for path in TESTS
        for node in functions(tree_of(path))
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert bare == []


def test_test_names_are_short() -> None:
    """A test's name has at most 60 characters."""
    names = [node.name for path in TESTS for node in functions(tree_of(path))]
    long = [each for each in names if each.startswith("test_") and len(each) > TEST_NAME_LENGTH_MAX]

    assert long == []


def test_no_open_ends_are_marked_in_the_source() -> None:
    """Open ends are issues, not marks in the source."""
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3)
    found = [name_of(p) for p in SOURCES for mark in marks if mark in p.read_text()]

    assert found == []


def test_every_drop_reason_is_documented() -> None:
    """Each reason that `status` counts is in the protocol's table."""
    protocol = (ROOT / "docs/PROTOCOL.md").read_text()
    reasons: set[str] = set()
    for path in [*(ROOT / "overlay/wire").rglob("*.py"), *(ROOT / "overlay/core").rglob("*.py")]:
        tree = tree_of(path)
        named = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "RemoteError"
            ):
                reason = node.args[0]
                if isinstance(reason, ast.Constant):
                    reasons.add(str(reason.value))
                elif isinstance(reason, ast.Name) and reason.id in named:
                    reasons.add(str(named[reason.id]))

    assert "answer-of-one-not-asked" in reasons
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in protocol] == []


MODULES_PER_FOLDER_MAX = 15
# Nouns that end like a gerund or a participle.
NOUNS = {"ping", "string", "keyring", "routing", "ring", "feed", "seed", "speed"}


def test_a_folder_holds_few_modules() -> None:
    """A newcomer finds a file with one guess."""
    modules = Counter(name_of(path.parent) for path in SOURCES if path.name != "__init__.py")

    assert {name: many for name, many in modules.items() if many > MODULES_PER_FOLDER_MAX} == {}


def test_a_module_is_named_by_a_noun() -> None:
    """No module's name is a bare gerund or participle."""
    names = {path.stem for path in SOURCES if "_" not in path.stem} - NOUNS

    assert {name for name in names if name.endswith(("ing", "ed"))} == set()


def class_names(package: str) -> dict[str, list[str]]:
    """Return the public classes of a package, each with the files that define it."""
    found: dict[str, list[str]] = {}
    for path in (ROOT / "overlay" / package).rglob("*.py"):
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(name_of(path))
    return found


@pytest.mark.parametrize("package", ["agent", "core", "wire", "kernel"])
def test_a_class_name_means_one_thing(package: str) -> None:
    """No public class name is defined twice within a package."""
    assert {name: at for name, at in class_names(package).items() if len(at) > 1} == {}


WIRED = [p for part in ("agent", "core", "wire") for p in (ROOT / "overlay" / part).rglob("*.py")]
CONSTRUCTOR_PARAMETERS_MAX = 8  # self and seven more
CALLED = {"Callable", "Awaitable"}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters, in order."""
    given = function.args
    return [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def is_called(annotation: ast.expr) -> bool:
    """Return whether an annotation is a Callable or an Awaitable, or one of those or None."""
    if isinstance(annotation, ast.BinOp):
        return is_called(annotation.left) or is_called(annotation.right)
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return isinstance(outer, ast.Name) and outer.id in CALLED


def defined(tree: ast.AST, *, methods: bool) -> Iterator[str]:
    """Yield the names of a file's methods, without properties, or of its other functions."""
    inside = {
        id(node)
        for parent in ast.walk(tree)
        if isinstance(parent, ast.ClassDef)
        for node in parent.body
    }
    for node in functions(tree):
        is_property = any(isinstance(each, ast.Name) for each in node.decorator_list)
        if (id(node) in inside) is methods and not is_property:
            yield node.name


@functools.cache
def method_names() -> frozenset[str]:
    """Return the names of all methods that a callback could be."""
    return frozenset(name for path in WIRED for name in defined(tree_of(path), methods=True))


def assignments(tree: ast.AST) -> Iterator[tuple[ast.Attribute, ast.expr]]:
    """Yield the attributes that are assigned to, each with its new value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute):
                    yield target, node.value


def callbacks_set_later(tree: ast.AST, methods: frozenset[str]) -> list[str]:
    """Return the statements of a file that make an attribute a callback for others to set."""
    found = [
        ast.unparse(node)
        for function in functions(tree)
        for node in ast.walk(function)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Attribute)
        and is_called(node.annotation)
        and not (isinstance(node.value, ast.Name) and node.value.id in parameters(function))
    ]
    local = set(defined(tree, methods=False))
    for target, value in assignments(tree):
        is_own = isinstance(target.value, ast.Name) and target.value.id == "self"
        is_method = isinstance(value, ast.Attribute) and value.attr in methods
        is_function = isinstance(value, ast.Name) and value.id in local
        if isinstance(value, ast.Lambda) or (not is_own and (is_method or is_function)):
            found.append(f"{ast.unparse(target)} = {ast.unparse(value)}")
    return found


def test_no_attribute_is_a_callback_set_later() -> None:
    """Events are signals, and questions are constructor arguments: the imports show all calls."""
    methods = method_names()
    found = {name_of(path): callbacks_set_later(tree_of(path), methods) for path in WIRED}

    assert {name: statements for name, statements in found.items() if statements} == {}


@pytest.mark.parametrize(
    "statement",
    [
        "self.lost: Callable[[], None] = lambda: None",
        "self.lost: Callable[[], None] | None = None",
        "self.lost: Callable[[], Awaitable[None]] = _nothing",
        "self.lost = lambda: None",
        "self.reconciler.lost = repair.report",
        "other.lost = report",
    ],
)
def test_a_callback_set_later_is_found(statement: str) -> None:
    """The check above finds each form that such an attribute has had."""
    body = f"def report() -> None: ...\nclass A:\n    def __init__(self):\n        {statement}\n"

    assert callbacks_set_later(ast.parse(body), frozenset({"report"}))


def test_constructors_take_few_arguments() -> None:
    """A component that needs more collaborators takes a context object, or is two components."""
    many = [
        f"{name_of(path)}: {node.name}"
        for path in sorted((ROOT / "overlay/agent").rglob("*.py"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        for function in functions(node)
        if function.name == "__init__" and len(parameters(function)) > CONSTRUCTOR_PARAMETERS_MAX
    ]

    assert many == []
