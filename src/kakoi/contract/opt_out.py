"""Lists of people who opted out: what one is bound to, which column it is about, and how many of them may be said.

A list belongs to one data set, whatever its version. It is sealed like data under a key of its own, under a random name, and reaches an
enclave only through its owner's key grant. ``docs/formats/opt-out.md`` is the human description.
"""

from __future__ import annotations

from typing import Final

from kakoi.contract.model import Column, DatasetManifest
from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import Refused

FILE: Final = "opt-out"
"""The file name that a list is sealed as."""


def sealed_as(dataset: str, name: str) -> str:
    """What a list is bound to in the place of a data set's id: its data set and its own random name (32 hex digits each)."""
    return f"opt-out/{dataset}/{name}"


def require_column(manifest: DatasetManifest, name: str) -> Column:
    """The column of a data set that a list can be about: its person column, a join key, or one that is there for opt-outs.

    Raises Refused: by a column that names nobody, nobody can be left out.
    """
    for column in manifest.columns:
        named = column.identifier in ("join-key", "opt-out") or column.name == manifest.person_column
        if column.name == name and named:
            return column
    raise Refused(
        "opt-out.column",
        "expected a column that names people (the person column, a join key, or one flagged opt-out), got another",
        hint='seal the data set again with such a column: identifier = "opt-out" shows it to no analysis',
    )


def usable_columns(manifest: DatasetManifest) -> tuple[str, ...]:
    """Columns that a list can be about, the most fitting first: those flagged for it, the person column, join keys."""
    flagged = [c.name for c in manifest.columns if c.identifier == "opt-out"]
    person = [manifest.person_column] if manifest.person_column is not None else []
    joins = [c.name for c in manifest.columns if c.identifier == "join-key"]
    return tuple(dict.fromkeys((*flagged, *person, *joins)))


def at_least(people: int, rules: DisclosureRules) -> int:
    """How many people who opted out a passport may say were left out: a multiple of the fewest people that the owner's rules show.

    The exact number would change by one whenever one more person opts out, and so tell whose rows two results differ by.
    """
    least = max(rules.minimum_contributors, rules.minimum_cell)
    return people - people % least
