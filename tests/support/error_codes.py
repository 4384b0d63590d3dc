"""Every error code that ``src`` can raise, read from the syntax trees.

A code is the first argument of one of the five families. Where that argument is a parameter, the function forwards
codes, and the calls of that function are read too, as often as needed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kakoi.core.errors import Fatal, KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.enclave.failures import FAILURES
from support.tree import SRC, parsed, sources

FAMILIES: Final[dict[str, type[KakoiError]]] = {
    family.__name__: family for family in (Misuse, Malformed, Refused, Unavailable, Fatal)
}
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Places that pass on a code which somebody else chose, as ``file: expression``.
PASSED_ON: Final = {
    "core/errors.py: code",
    "core/records.py: error.code",
    "enclave/failures.py: code",
    "enclave/keeper/work.py: error.code",
    "net/caller.py: code",
    "sdk/run.py: outcome.failure.code",
    "wire/enclave_run.py: said.code",
}


@dataclass(slots=True)
class Code:
    """One code: its families, where it is raised, and the first message found there (``…`` for values)."""

    families: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    message: str = ""


@dataclass(frozen=True, slots=True)
class Forwarder:
    """A function that makes errors with a code that it was given."""

    name: str
    file: str
    position: int
    parameter: str
    prefix: str
    families: frozenset[str]
    parameters: tuple[str, ...]


def _within(tree: ast.Module) -> Iterator[tuple[Function | None, ast.Call]]:
    """Calls, each with the innermost function around it."""

    def walk(node: ast.AST, around: Function | None) -> Iterator[tuple[Function | None, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield around, child
            yield from walk(child, child if isinstance(child, Function) else around)

    return walk(tree, None)


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    for word in call.keywords:
        if word.arg == name:
            return word.value
    return call.args[position] if len(call.args) > position else None


def _constants(value: ast.expr) -> list[str] | None:
    """The texts that an expression of constants can be; None for anything else."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return [value.value]
    if isinstance(value, ast.IfExp):
        both = [_constants(value.body), _constants(value.orelse)]
        return [text for texts in both if texts for text in texts] if None not in both else None
    return None


def _parameters(function: Function) -> list[str]:
    """Names of the positional parameters, without ``self``."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _said(call: ast.Call, parameters: tuple[str, ...]) -> str:
    """The message that a forwarder makes of its arguments, as far as their names tell."""
    given = {name: text_of(_argument(call, i, name)) or "…" for i, name in enumerate(parameters)}
    if "message" in given or (call.keywords and any(word.arg == "message" for word in call.keywords)):
        return given.get("message") or text_of(_argument(call, 10**6, "message"))
    about = next((given[name] for name in ("check", "what", "where") if name in given), "")
    if "expected" in given:
        return f"{about}: expected {given['expected']}, got {given.get('got', '…')}".removeprefix(": ")
    return about


def _assigned(value: ast.expr, function: Function | None) -> list[str]:
    """The constants that a local variable is given."""
    found: list[str] = []
    if function is not None and isinstance(value, ast.Name):
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [value.id]:
                found += _constants(node.value) or []
    return found


def _parameter_of(value: ast.expr, function: Function | None) -> tuple[str, int, str] | None:
    """Name and position of the parameter that ``value`` hands on, and a constant prefix."""
    prefix = ""
    if isinstance(value, ast.JoinedStr) and len(value.values) == 2:
        first, second = value.values
        if isinstance(first, ast.Constant) and isinstance(second, ast.FormattedValue):
            prefix, value = str(first.value), second.value
    if function is None or not isinstance(value, ast.Name):
        return None
    names = _parameters(function)
    if value.id in names:
        return value.id, names.index(value.id), prefix
    if value.id in [argument.arg for argument in function.args.kwonlyargs]:
        return value.id, 10**6, prefix
    return None


def text_of(value: ast.expr | None) -> str:
    """A message as the source writes it, with ``…`` where a value stands."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in value.values)
    if isinstance(value, ast.IfExp):
        return text_of(value.body)
    return ""


class Scan:
    """All codes of ``src``. ``unresolved`` names the places where a code could not be read."""

    def __init__(self) -> None:
        self.codes: dict[str, Code] = {}
        self.unresolved: set[str] = set()
        self.files = {path.relative_to(SRC).as_posix(): path for path in sources()}
        self._forwarders: set[Forwarder] = set()
        for name, path in self.files.items():
            self._families_in(name, path)
        seen: set[Forwarder] = set()
        while new := self._forwarders - seen:
            seen |= new
            for forwarder in sorted(new, key=lambda f: (f.file, f.name, f.prefix)):
                self._calls_of(forwarder)
        for code, (message, _) in FAILURES.items():
            self._add(code, "Refused", "enclave/failures.py", message)

    def _families_in(self, name: str, path: Path) -> None:
        for function, call in _within(parsed(path)):
            if _called(call) in FAMILIES and (value := _argument(call, 0, "code")) is not None:
                says = text_of(_argument(call, 1, "message"))
                self._meet(name, function, call, value, says, None, frozenset({_called(call)}))

    def _calls_of(self, forwarder: Forwarder) -> None:
        private = forwarder.name.startswith("_")
        for name, path in self.files.items():
            if private and name != forwarder.file:
                continue
            for function, call in _within(parsed(path)):
                if _called(call) == forwarder.name:
                    value = _argument(call, forwarder.position, forwarder.parameter)
                    if value is not None:
                        says = _said(call, forwarder.parameters)
                        self._meet(name, function, call, value, says, forwarder, forwarder.families)

    def _meet(
        self,
        name: str,
        function: Function | None,
        call: ast.Call,
        value: ast.expr,
        says: str,
        through: Forwarder | None,
        families: frozenset[str],
    ) -> None:
        prefix = through.prefix if through else ""
        texts = _constants(value) or _assigned(value, function)
        if texts:
            for text in texts:
                for family in families:
                    self._add(prefix + text, family, name, says)
            return
        handed = _parameter_of(value, function)
        if handed is not None and function is not None:
            parameter, position, more = handed
            names = tuple(_parameters(function))
            self._forwarders.add(Forwarder(function.name, name, position, parameter, prefix + more, families, names))
            for default in _defaults(function, parameter):
                for text in _constants(default) or []:
                    for family in families:
                        self._add(prefix + more + text, family, name, "")
        elif f"{name}: {ast.unparse(value)}" not in PASSED_ON:
            self.unresolved.add(f"{name}:{call.lineno} {ast.unparse(value)}")

    def _add(self, code: str, family: str, place: str, message: str) -> None:
        entry = self.codes.setdefault(code, Code())
        entry.families.add(family)
        entry.places.add(place)
        entry.message = entry.message or message


def _defaults(function: Function, parameter: str) -> list[ast.expr]:
    positional = [*function.args.posonlyargs, *function.args.args]
    pairs: list[tuple[ast.arg, ast.expr | None]] = list(
        zip(reversed(positional), reversed(function.args.defaults), strict=False)
    )
    pairs += zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return [default for argument, default in pairs if argument.arg == parameter and default is not None]


_HEAD: Final = """# Errors

Generated from the source by `scripts/errors_doc.py`; a test compares. `…` stands for a value that the message shows.
Messages never hold a secret, a cell of anybody's data, or a number computed from data.

Every error is of one of five families. The family says what to do, and is the exit code of the command line:

| exit | family | what it means, and what to do |
|---|---|---|
| 2 | Misuse | this program was called wrongly: read the hint |
| 3 | Malformed | bytes are not what they claim to be: ask the sender |
| 4 | Refused | well-formed, and denied by a rule: ask whoever owns the rule |
| 5 | Unavailable | nobody's fault: try again |
| 6 | Fatal | the state is not known: stop, and let a person look |

Every failure that depends on a secret (wrong key, wrong tag, cut ciphertext) is `crypto.cannot-open`, with one text.
A hub's answer without a code of its own becomes `hub.status-NNN`, after its HTTP status.

| code | family | says | raised in |
|---|---|---|---|
"""


def errors_page() -> str:
    """The text of docs/errors.md."""
    scan = Scan()
    rows = []
    for code, entry in sorted(scan.codes.items()):
        says = " ".join(entry.message.split()).replace("|", "\\|")
        places = ", ".join(f"`{place.removesuffix('.py')}`" for place in sorted(entry.places))
        rows.append(f"| `{code}` | {' / '.join(sorted(entry.families))} | {says} | {places} |\n")
    return _HEAD + "".join(rows)
