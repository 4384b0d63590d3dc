"""docs/formats/{objects,messages}.md and the classes they describe say the same."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from kakoi.attest import policy, report
from kakoi.contract import approve, code, model, rules
from kakoi.core.records import Record
from kakoi.wire import messages, result
from support.describe import members
from support.tree import ROOT


def _of(*modules: ModuleType) -> dict[str, type[Record]]:
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Record) and value.__module__ == module.__name__
    }


PAGES: dict[str, dict[str, type[Record]]] = {
    "objects.md": _of(model, rules, policy, approve) | {"Component": report.Component},
    "messages.md": _of(messages, result)
    | {"Evidence": report.Evidence, "Collateral": report.Collateral, "Part": report.Part},
    "sealed-code.md": _of(code),
}
CLASSES = [(page, name) for page, classes in PAGES.items() for name in sorted(classes)]


def _text(page: str) -> str:
    return (ROOT / "docs/formats" / page).read_text("utf-8")


def _described(page: str) -> dict[str, dict[str, str]]:
    sections = re.split(r"^### ", _text(page), flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| `([A-Za-z0-9_]+)` \| (.*?) \| .+ \|$", re.MULTILINE)
    return {section.split("\n", 1)[0].strip(): dict(row.findall(section.split("\n## ")[0])) for section in sections}


@pytest.mark.parametrize("page", PAGES)
def test_exactly_the_objects_are_described(page: str) -> None:
    assert set(_described(page)) == set(PAGES[page])


@pytest.mark.parametrize(("page", "name"), CLASSES)
def test_members_and_types_are_the_sources(page: str, name: str) -> None:
    assert _described(page)[name] == members(PAGES[page][name])


@pytest.mark.parametrize("page", PAGES)
def test_size_limits_are_the_sources(page: str) -> None:
    stated = re.findall(r"`(kakoi/[a-z/-]+1)`, at most (\d+) ([KM])iB", _text(page))
    kinds = {cls.KIND: cls for cls in PAGES[page].values() if cls.KIND}
    assert len(stated) >= min(7, len(kinds))
    for kind, number, unit in stated:
        assert int(number) * (1024 if unit == "K" else 1024 * 1024) == kinds[kind].MAX_BYTES, kind
