"""docs/formats/objects.md and the classes it describes say the same."""

from __future__ import annotations

import re

import pytest

from kakoi.attest import policy, report
from kakoi.contract import approve, model
from kakoi.core.records import Record
from support.describe import members
from support.tree import ROOT

PAGE = (ROOT / "docs/formats/objects.md").read_text("utf-8")
CLASSES: dict[str, type[Record]] = {
    name: value
    for module in (model, policy, approve)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Record) and value.__module__ == module.__name__
} | {"Component": report.Component}


def _described() -> dict[str, dict[str, str]]:
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| `([a-z0-9_]+)` \| (.*?) \| .+ \|$", re.MULTILINE)
    return {section.split("\n", 1)[0].strip(): dict(row.findall(section.split("\n## ")[0])) for section in sections}


def test_exactly_the_objects_are_described() -> None:
    assert set(_described()) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_members_and_types_are_the_sources(name: str) -> None:
    assert _described()[name] == members(CLASSES[name])


def test_size_limits_are_the_sources() -> None:
    stated = re.findall(r"^`(kakoi/[a-z/-]+1)`, at most (\d+) ([KM])iB", PAGE, re.MULTILINE)
    assert len(stated) >= 7
    kinds = {cls.KIND: cls for cls in CLASSES.values() if cls.KIND}
    for kind, number, unit in stated:
        assert int(number) * (1024 if unit == "K" else 1024 * 1024) == kinds[kind].MAX_BYTES, kind
