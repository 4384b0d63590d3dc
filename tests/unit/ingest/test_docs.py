"""docs/formats/schema.md cannot lie: its example parses, and it names every key, check and suffix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from kakoi.core.errors import KakoiError
from kakoi.sdk.ingest.convert import ARROW, FORMS
from kakoi.sdk.ingest.report import CheckName
from kakoi.sdk.ingest.schema import parse_schema

PAGE = (Path(__file__).parents[3] / "docs" / "formats" / "schema.md").read_text("utf-8")


def test_the_example_is_a_schema() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    schema = parse_schema(example)
    assert schema.file.encoding == "cp932"
    assert [c.column.name for c in schema.columns] == ["patient", "age", "sex", "grade", "seen_at", "drug", "dose"]


_COLUMN = "[columns.x]\ntype = 'date'\n"
_RULE = f"{_COLUMN}[[plausible]]\ncheck = 'plausibleGender'\ncolumn = 'x'\n"


@pytest.mark.parametrize("place", ["", _COLUMN, f"{_COLUMN}[file]\n", _RULE])
def test_every_key_is_explained(place: str) -> None:
    top = "table = 't'\ntitle = 'T'\n" if place else ""
    with pytest.raises(KakoiError) as caught:
        parse_schema(f"{top}{place}no-such-key = 1\n")
    keys = caught.value.message.split("expected one of ")[1].split(", got")[0].split(", ")
    assert len(keys) >= 4
    for key in keys:
        assert re.search(rf"\b{key}\b", PAGE), key


def test_types_checks_and_examples_of_cells() -> None:
    for word in (*ARROW, *get_args(CheckName)):
        assert f"`{word}`" in PAGE
    integer = re.compile(FORMS["integer"].replace(r"\z", r"\Z"))
    row = next(line for line in PAGE.splitlines() if line.startswith("| `integer` | `0`"))
    accepted, refused = row.split("|")[2:4]
    assert all(integer.match(text) for text in re.findall(r"`([^`]+)`", accepted))
    assert not any(integer.match(text) for text in re.findall(r"`([^`]+)`", refused))
