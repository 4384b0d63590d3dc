"""One event against one detection: fields, modifiers, wildcards, conditions (Sigma rules specification 2.1.0, Detection). Pure.

What this does not know it refuses when the rule is read: a rule that silently means something else is worse than none.
Left out on purpose: keyword searches over the whole event (events have no free text), ``windash``, ``base64``, ``utf16`` and
``expand`` (nothing here is a command line, or a placeholder).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kakoi.core.errors import Malformed

Predicate = Callable[[Any], bool]
_MODIFIERS: Final = frozenset(
    {"all", "contains", "startswith", "endswith", "exists", "cased", "neq", "re", "i", "m", "s", "cidr"}
    | {"lt", "lte", "gt", "gte"}
)
_TOKEN: Final = re.compile(r"\(|\)|[A-Za-z0-9_*.-]+")
MISSING: Final = object()


def bad(what: str) -> Malformed:
    """A rule that this evaluator does not take."""
    return Malformed("sigma.rule", f"expected a Sigma rule that this evaluator knows, got {what}")


def values_at(event: Any, field: str) -> list[Any]:
    """All values at a dotted path; a list on the way stands for each of its members. Empty if there is nothing."""
    found = [event]
    for part in field.split("."):
        following: list[Any] = []
        for item in found:
            value = item.get(part, MISSING) if isinstance(item, dict) else MISSING
            following += value if isinstance(value, list) else [] if value is MISSING else [value]
        found = following
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _pattern(value: str, *, cased: bool, before: str = "", after: str = "") -> re.Pattern[str]:
    """``*`` and ``?`` are wildcards unless a backslash stands before them."""
    out, at = [before], 0
    while at < len(value):
        char = value[at]
        if char == "\\" and value[at + 1 : at + 2] in ("*", "?", "\\"):
            out.append(re.escape(value[at + 1]))
            at += 2
            continue
        out.append({"*": ".*", "?": "."}.get(char) or re.escape(char))
        at += 1
    return re.compile("".join([*out, after]) + r"\Z", re.DOTALL | (0 if cased else re.IGNORECASE))


def _compare(name: str, limit: Any) -> Predicate:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise bad(f"{name} with something else than a number")
    tests: dict[str, Callable[[int], bool]] = {
        "lt": lambda v: v < limit,
        "lte": lambda v: v <= limit,
        "gt": lambda v: v > limit,
        "gte": lambda v: v >= limit,
    }
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and tests[name](value)


def _cidr(value: Any) -> Predicate:
    try:
        network = ipaddress.ip_network(str(value))
    except ValueError:
        raise bad("cidr with something else than a network") from None

    def inside(found: Any) -> bool:
        try:
            return ipaddress.ip_address(str(found)) in network
        except ValueError:
            return False

    return inside


def _one(value: Any, modifiers: frozenset[str]) -> Predicate:
    """A predicate over one value of the event."""
    for name in ("lt", "lte", "gt", "gte"):
        if name in modifiers:
            return _compare(name, value)
    if "cidr" in modifiers:
        return _cidr(value)
    if "re" in modifiers:
        flags = sum(getattr(re, flag.upper()) for flag in ("i", "m", "s") if flag in modifiers)
        try:
            expression = re.compile(str(value), flags)
        except re.error:
            raise bad("a regular expression that is none") from None
        return lambda found: expression.search(_text(found)) is not None
    if value is None:
        return lambda found: found is None
    before = ".*" if modifiers & {"contains", "endswith"} else ""
    after = ".*" if modifiers & {"contains", "startswith"} else ""
    pattern = _pattern(_text(value), cased="cased" in modifiers, before=before, after=after)
    return lambda found: pattern.match(_text(found)) is not None


def _field(name: str, wanted: Any) -> Predicate:
    field, *given = name.split("|")
    modifiers = frozenset(given)
    if not field or not modifiers <= _MODIFIERS:
        raise bad(f"the field {name}")
    if "exists" in modifiers:
        if not isinstance(wanted, bool):
            raise bad("exists with something else than true or false")
        return lambda event: bool(values_at(event, field)) is wanted
    tests = [_one(value, modifiers) for value in (wanted if isinstance(wanted, list) else [wanted])]
    combine = all if "all" in modifiers else any
    nothing = wanted is None

    def holds(event: Any) -> bool:
        found = values_at(event, field)
        if not found:
            return nothing
        hit = combine(any(test(value) for value in found) for test in tests)
        return hit is not ("neq" in modifiers)

    return holds


def _search(definition: Any) -> Predicate:
    """A search identifier: a map (and), or a list of maps (or)."""
    if isinstance(definition, dict) and definition:
        fields = [_field(str(name), wanted) for name, wanted in definition.items()]
        return lambda event: all(test(event) for test in fields)
    if isinstance(definition, list) and definition and all(isinstance(item, dict) for item in definition):
        parts = [_search(item) for item in definition]
        return lambda event: any(test(event) for test in parts)
    raise bad("a search that is neither a map nor a list of maps")


class _Condition:
    """Recursive descent over ``or``, ``and``, ``not``, ``1 of``, ``all of`` and brackets."""

    def __init__(self, text: str, searches: Mapping[str, Predicate]) -> None:
        self._tokens = _TOKEN.findall(text)
        if "".join(self._tokens) != re.sub(r"\s", "", text) or not self._tokens:
            raise bad("a condition with something that is no word or bracket")
        self._searches, self._at = searches, 0

    def read(self) -> Predicate:
        made = self._either()
        if self._at != len(self._tokens):
            raise bad("a condition that goes on behind its end")
        return made

    def _next(self, *expected: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at].lower() in expected:
            self._at += 1
            return True
        return False

    def _either(self) -> Predicate:
        parts = [self._both()]
        while self._next("or"):
            parts.append(self._both())
        return lambda event: any(part(event) for part in parts)

    def _both(self) -> Predicate:
        parts = [self._not()]
        while self._next("and"):
            parts.append(self._not())
        return lambda event: all(part(event) for part in parts)

    def _not(self) -> Predicate:
        if self._next("not"):
            part = self._not()
            return lambda event: not part(event)
        return self._term()

    def _term(self) -> Predicate:
        if self._next("("):
            inside = self._either()
            if not self._next(")"):
                raise bad("a condition without its closing bracket")
            return inside
        word = self._word()
        if word.lower() in ("1", "any", "all") and self._next("of"):
            return self._several(word.lower() == "all", self._word())
        if word not in self._searches:
            raise bad(f"a condition that names {word}, which is no search")
        return self._searches[word]

    def _word(self) -> str:
        if self._at >= len(self._tokens):
            raise bad("a condition that ends too early")
        self._at += 1
        return str(self._tokens[self._at - 1])

    def _several(self, every: bool, pattern: str) -> Predicate:
        expression = re.compile(("(?!_).*" if pattern == "them" else re.escape(pattern).replace(r"\*", ".*")) + r"\Z")
        chosen = [search for name, search in self._searches.items() if expression.match(name)]
        if not chosen:
            raise bad(f"a condition over {pattern}, which no search is named")
        combine: Callable[[Iterable[bool]], bool] = all if every else any
        return lambda event: combine(search(event) for search in chosen)


def detection(table: Any) -> Predicate:
    """A rule's ``detection`` as a predicate over events. Raises Malformed for what it does not know."""
    if not isinstance(table, dict) or "condition" not in table:
        raise bad("a detection without a condition")
    searches = {str(name): _search(value) for name, value in table.items() if name != "condition"}
    texts = table["condition"] if isinstance(table["condition"], list) else [table["condition"]]
    conditions = [_Condition(str(text), searches).read() for text in texts]
    return lambda event: any(condition(event) for condition in conditions)
