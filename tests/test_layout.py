"""Budgets, names and finish of every file, as `docs/architecture.md` sets them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("fhir_server", "mappers", "profiles", "scripts", "tests", "examples", "bench", "docs", ".ci", ".github")
TEXTS = frozenset({".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".json", ".cfg", ""})

FILE_LINES = 400
TEST_LINES = 800
FUNCTION_LINES = 40
PARAMETERS = 6

FORBIDDEN_WORDS = frozenset(
    word + plural
    for word in ("manager", "helper", "util", "utility", "utilitie", "service", "handler", "impl", "record", "dao")
    for plural in ("", "s")
)

# Names of FHIR's own that a forbidden word is part of.
FHIR_NAMES = re.compile("HealthcareService|healthcare_service|[sS]ervice(?:Type|_type)")

# Written so that this file does not hold what it looks for.
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", r"\bXX" + r"X\b", "NotImplemented" + "Error")))
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|root|tmp|home/\w+|Users/\w+)(?=/|\b)")
REGISTRY = re.compile(r"(?:pypi|pythonhosted)\.(?:org|com)" + r"|index-" + "url", re.IGNORECASE)


@cache
def texts() -> tuple[Path, ...]:
    """Every text file of the project, those beside the folders included."""
    return tuple(_texts())


def _texts() -> Iterator[Path]:
    for place in (ROOT, *(ROOT / folder for folder in FOLDERS)):
        for path in sorted(place.glob("*") if place == ROOT else place.rglob("*")):
            if path.is_file() and path.suffix in TEXTS and "__pycache__" not in path.parts and path.name != ".git":
                yield path


def modules() -> Iterator[Path]:
    return (path for path in texts() if path.suffix == ".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_test(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] == "tests"


Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(path)))


def functions(path: Path) -> Iterator[tuple[Function, bool]]:
    """Each function of a module, and whether it is a method with a `self` or `cls`."""
    for parent in (node for node in nodes_of(path) if not isinstance(node, ast.expr)):
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, Function):
                static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in node.decorator_list)
                yield node, isinstance(parent, ast.ClassDef) and not static


def words(identifier: str) -> set[str]:
    """`HttpSender` and `http_sender` are both {http, sender}; names of FHIR's own are left out."""
    identifier = FHIR_NAMES.sub("_", identifier)
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", identifier)}


def test_the_project_is_found() -> None:
    found = {name(path) for path in texts()}
    assert {"pyproject.toml", "README.md", "LICENSE", ".ci/run", "fhir_server/app.py"} <= found


def test_files_keep_to_their_budget() -> None:
    over = []
    for path in modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > (TEST_LINES if is_test(path) else FILE_LINES):
            over.append(f"{name(path)}: {lines} lines")
    assert over == []


def test_functions_keep_to_their_budget() -> None:
    over = []
    for path in modules():
        for function, _ in () if is_test(path) else functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > FUNCTION_LINES:
                over.append(f"{name(path)}:{function.lineno} {function.name}: {lines} lines")
    assert over == []


def test_functions_have_few_parameters() -> None:
    """Commands aside, where a parameter is an option, and tests, where it is a fixture."""
    over = []
    for path in modules():
        if path.is_relative_to(ROOT / "fhir_server" / "commands") or path.name == "__main__.py" or is_test(path):
            continue
        for function, method in functions(path):
            given = function.args
            count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - method
            if count > PARAMETERS:
                over.append(f"{name(path)}:{function.lineno} {function.name}: {count} parameters")
    assert over == []


def test_names_are_those_of_fhir() -> None:
    wrong = []
    for path in modules():
        named = [path.stem]
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef | Function):
                named.append(node.name)
            if isinstance(node, ast.ClassDef) and node.name.lstrip("_").startswith("Base"):
                wrong.append(f"{name(path)}: {node.name}")
        wrong += [f"{name(path)}: {each}" for each in named if words(each) & FORBIDDEN_WORDS]
    assert wrong == []


@pytest.mark.parametrize(
    ("identifier", "forbidden"),
    [
        ("find_healthcare_service", False),
        ("HealthcareService", False),
        ("ServiceType", False),
        ("match_service_type", False),
        ("PatientService", True),
        ("ServiceTypes", False),
        ("service", True),
        ("healthcare_service_service", True),
        ("bulk_publish", False),
    ],
)
def test_forbidden_words_may_stand_in_names_of_fhir_alone(identifier: str, forbidden: bool) -> None:
    assert bool(words(identifier) & FORBIDDEN_WORDS) == forbidden


def test_modules_open_with_a_sentence() -> None:
    silent = [name(path) for path in modules() if not (ast.get_docstring(tree_of(path)) or "").strip()]
    assert silent == []


def test_nothing_is_left_unfinished() -> None:
    left = []
    for path in modules():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if UNFINISHED.search(line):
                left.append(f"{name(path)}:{number} {line.strip()[:80]}")
    assert left == []


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine path", "registry host"])
def test_no_file_speaks_of_one_machine(pattern: re.Pattern[str]) -> None:
    found = []
    for path in texts():
        if path.suffix == ".json" and path.is_relative_to(ROOT / "fhir_server" / "fhir" / "tables"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name(path)}:{number} {line.strip()[:80]}")
    assert found == []


def test_test_files_have_names_of_their_own() -> None:
    """The test folders are no packages: two modules of one name cannot be collected together."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(each for each in set(names) if names.count(each) > 1)


def test_slow_tests_are_tests() -> None:
    """A name that was changed would silently be quick again."""
    names = (ROOT / "tests" / "slow_tests.txt").read_text(encoding="utf-8").split()
    assert names == sorted(set(names))
    suite = (ROOT / "fhir_server" / "store" / "contract").glob("*.py")
    contract = "".join(path.read_text(encoding="utf-8") for path in suite)
    for name in names:
        file, *_, function = name.split("::")
        assert re.search(rf"def {function}\(", (ROOT / file).read_text(encoding="utf-8") + contract), name
