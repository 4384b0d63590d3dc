"""House rules that no linter knows, checked on the syntax trees of all of ``src``."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from support.tree import SRC, functions, parsed, pure_sources, relative, sources

FORBIDDEN_CALLS = {"open", "print", "input", "__import__", "eval", "exec", "compile", "breakpoint"}
FORBIDDEN_METHODS = {
    "now",
    "utcnow",
    "today",
    "uuid1",
    "uuid4",
    "urandom",
    "getrandbits",
    "monotonic",
    "perf_counter",
}
MACHINES = {"AnalystRun", "BrokerRun", "EnclaveRun", "RenewalRun"}
"""Conversations without I/O: the only dataclasses of pure rooms that change."""
JUDGES = re.compile(r"(verify|check|appraise|judge|require|admit|authori[sz]e|validate)(_|$)")
MOST_LINES = 500
MOST_FUNCTION_LINES = 60
TODO = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def _name(call: ast.Call) -> tuple[str, str]:
    """Function name and, for ``a.b()``, the name before the dot."""
    if isinstance(call.func, ast.Name):
        return call.func.id, ""
    if isinstance(call.func, ast.Attribute):
        before = call.func.value
        return call.func.attr, before.id if isinstance(before, ast.Name) else "?"
    return "", ""


def test_the_lists_of_files_are_not_empty() -> None:
    assert len(pure_sources()) > 30
    assert len(sources()) > len(pure_sources())


def test_pure_rooms_have_no_effects() -> None:
    found = []
    for path in pure_sources():
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call):
                continue
            name, before = _name(node)
            builtin = name in FORBIDDEN_CALLS and before in ("", "builtins", "io")
            effect = name in FORBIDDEN_METHODS and before != ""
            if builtin or effect:
                found.append(f"{relative(path)}:{node.lineno} {before}.{name}")
    assert not found


def test_pure_rooms_have_no_module_state_that_can_be_rebound() -> None:
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in pure_sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.Global, ast.Nonlocal))
    ]
    assert not found


def _dataclass_arguments(cls: ast.ClassDef) -> set[str] | None:
    for decorator in cls.decorator_list:
        if isinstance(decorator, ast.Name) and decorator.id == "dataclass":
            return set()
        if isinstance(decorator, ast.Call) and _name(decorator)[0] == "dataclass":
            return {
                word.arg
                for word in decorator.keywords
                if word.arg and isinstance(word.value, ast.Constant) and word.value.value is True
            }
    return None


def test_dataclasses_of_pure_rooms_are_frozen_slotted_and_keyword_only() -> None:
    found = []
    for path in pure_sources():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                given = _dataclass_arguments(node)
                if node.name not in MACHINES and given is not None and not {"frozen", "slots", "kw_only"} <= given:
                    found.append(f"{relative(path)}:{node.lineno} {node.name}")
    assert not found


def test_judgements_raise() -> None:
    """A ``bool`` can be forgotten; an exception cannot."""
    found = []
    for path in sources():
        for function in functions(parsed(path)):
            returns = ast.unparse(function.returns) if function.returns else ""
            if not function.name.startswith("_") and JUDGES.match(function.name) and "bool" in returns:
                found.append(f"{relative(path)}:{function.lineno} {function.name} -> {returns}")
    assert not found


def test_nobody_catches_everything_silently() -> None:
    found = []
    for path in sources():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                silent = all(isinstance(part, (ast.Pass, ast.Continue)) for part in node.body)
                if node.type is None or (caught in ("Exception", "BaseException") and silent):
                    found.append(f"{relative(path)}:{node.lineno}")
    assert not found


def test_no_assertion_guards_anything() -> None:
    """``python -O`` removes them. ``assert isinstance(…)`` only tells the type checker what is known."""
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Assert) and not ast.unparse(node.test).startswith("isinstance(")
    ]
    assert not found


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(SRC).as_posix())
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") < MOST_LINES
    long = [
        f"{function.name}: {function.end_lineno - function.lineno + 1} lines"
        for function in functions(parsed(path))
        if function.end_lineno is not None and function.end_lineno - function.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert not long
    assert not TODO.search(text)


def _sealed_classes() -> list[tuple[str, str]]:
    return [
        (path.relative_to(SRC.parent).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"), node.name)
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(word.value) == "Sealed" for word in node.keywords)
    ]


@pytest.mark.parametrize(("module", "name"), _sealed_classes())
def test_verified_things_are_made_by_their_verifier_only(module: str, name: str) -> None:
    with pytest.raises(TypeError, match="made by"):
        getattr(importlib.import_module(module), name)()


def test_there_are_verified_things() -> None:
    assert {"VerifiedEvidence", "Signed", "Agreement"} <= {name for _, name in _sealed_classes()}


def test_what_is_called_verified_can_be_made_by_nobody_else() -> None:
    """A class named Verified… without a seal would be a promise without a check."""
    sealed = {name for _, name in _sealed_classes()}
    named = {
        node.name
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and node.name.startswith("Verified")
    }
    open_ones = {name for name in named - sealed if not _guarded(name)}
    assert not open_ones


def _guarded(name: str) -> bool:
    """Classes that earn their instances with a private token in ``__post_init__`` instead of the metaclass."""
    return any(
        isinstance(node, ast.ClassDef) and node.name == name and "earned" in ast.unparse(node)
        for path in sources()
        for node in ast.walk(parsed(path))
    )
