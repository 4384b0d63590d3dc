"""Field types of records in the words that docs/formats/objects.md uses for them."""

from __future__ import annotations

import types
from dataclasses import fields
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from kakoi.core.records import Decimal, Digest, Limit, Name, PartyRef, Prose, Record, Seconds, Slug, Title

NAMED: Final[list[tuple[Any, str]]] = [
    (Digest, "id"),
    (PartyRef, "party id"),
    (Name, "name"),
    (Title, "title"),
    (Prose, "prose"),
    (Seconds, "seconds"),
    (Decimal, "decimal"),
    (Slug, "slug"),
]
_PLAIN: Final = {str: "text", bytes: "bytes", int: "integer", bool: "boolean"}


def members(cls: type[Record]) -> dict[str, str]:
    """Each field of a record with its type in words."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: in_words(hints[f.name]) for f in fields(cls)}


def in_words(hint: Any, limit: Limit | None = None) -> str:
    """One field type in words."""
    for named, words in NAMED:
        if hint == named:
            return words
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return in_words(arguments[0], next(note for note in arguments[1:] if isinstance(note, Limit)))
    if origin is tuple:
        listed = f"list of {in_words(arguments[0])}{_bounds(limit)}"
        return listed + (", each once" if limit is not None and limit.unique else "")
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if member is type(None) else in_words(member) for member in arguments)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.__name__
    return _PLAIN[hint] + _bounds(limit)


def _bounds(limit: Limit | None) -> str:
    if limit is None:
        return ""
    return f" ({_number(limit.least)}" + ("" if limit.least == limit.most else f"–{_number(limit.most)}") + ")"


def _number(value: int) -> str:
    """Large powers of two are easier to read as such."""
    power = value.bit_length() - 1
    if value > 100_000 and value == 1 << power:
        return f"2^{power}"
    return str(value)
