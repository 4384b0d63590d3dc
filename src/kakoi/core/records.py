"""Frozen dataclasses to canonical JSON and back, strictly.

A record is a frozen, slotted, keyword-only dataclass that derives from ``Record``. Its field types
are the schema: ``str int bool bytes``, ``Literal``, ``tuple[T, ...]``, another record, ``T | None``
and unions of plain values. ``Annotated`` adds limits. A record with a ``KIND`` carries it as the
member ``kind``. Every field is always present: ``None`` is written ``null``, and unknown or missing
members are refused. ``encode(decode(C, x)) == x`` for every accepted x.
"""

from __future__ import annotations

import re
import types
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from kakoi.core import encoding
from kakoi.core.errors import Malformed
from kakoi.core.ids import HEX_DIGEST, ObjectId, PartyId, object_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Bounds of one field. Text: length in characters and pattern. Bytes and tuples: length. Integers: value."""

    least: int = 0
    most: int
    pattern: str = ""
    unique: bool = False


Digest = Annotated[ObjectId, Limit(least=64, most=64, pattern=HEX_DIGEST.pattern)]
PartyRef = Annotated[PartyId, Limit(least=64, most=64, pattern=HEX_DIGEST.pattern)]
Name = Annotated[str, Limit(least=1, most=64, pattern=r"[A-Za-z_][A-Za-z0-9_.-]*\Z")]
"""An identifier: tables, columns, parameters, outputs."""
Title = Annotated[str, Limit(least=1, most=120, pattern=r"[^\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]+\Z")]
"""One line for people. No control characters and no bidirectional overrides, so that it cannot lie on screen."""
Prose = Annotated[str, Limit(most=4000)]
Seconds = Annotated[int, Limit(most=2**40)]
"""Seconds since the Unix epoch, or a span of seconds."""
Decimal = Annotated[str, Limit(least=1, most=32, pattern=r"-?(0|[1-9][0-9]*)(\.[0-9]+)?\Z")]
"""A number with a fraction, as text: floats have no canonical form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of every object that is encoded."""

    KIND: ClassVar[str] = ""
    MAX_BYTES: ClassVar[int] = encoding.MAX_OBJECT_BYTES

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The record of canonical bytes. Raises Malformed for anything that ``encode`` would not write."""
        record = from_value(cls, encoding.loads(data, limit=cls.MAX_BYTES), cls.__name__)
        if record.encode() != data:
            raise Malformed("record.encoding", f"{cls.__name__}: expected its canonical encoding, got another spelling")
        return record

    def encode(self) -> bytes:
        """Canonical bytes."""
        return encoding.dumps(to_value(self))

    @property
    def id(self) -> ObjectId:
        """SHA-256 of the canonical bytes."""
        return object_id(self.encode())

    def check(self) -> None:
        """Rules between fields. Called after decoding; raises Malformed. Nothing to check by default."""


T = TypeVar("T", bound=Record)
_PLAIN: Final = {str: "text", int: "an integer", bool: "true or false", bytes: "base64"}


def to_value(item: Any) -> encoding.Json:
    """A record (or a field of one) as a JSON value."""
    if isinstance(item, Record):
        value = {f.name: to_value(getattr(item, f.name)) for f in fields(item)}
        return {"kind": item.KIND, **value} if item.KIND else value
    if isinstance(item, bytes):
        return encoding.b64(item)
    if isinstance(item, tuple):
        return [to_value(part) for part in item]
    return item


@lru_cache(maxsize=256)
def _hints(cls: type[Record]) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in fields(cls)}


def _fail(path: str, expected: str, got: str) -> Malformed:
    return Malformed(
        "record.field", f"{path}: expected {expected}, got {got}", hint="ask the sender for a valid object"
    )


def from_value(cls: type[T], value: encoding.Json, path: str) -> T:
    """A record of class ``cls`` from a JSON value; ``path`` names the place in messages."""
    if not isinstance(value, dict):
        raise _fail(path, "an object", type(value).__name__)
    hints = _hints(cls)
    members = dict(value)
    if cls.KIND and members.pop("kind", None) != cls.KIND:
        raise Malformed("record.kind", f"{path}: expected kind {cls.KIND}, got another kind or none")
    for name in members:
        if name not in hints:
            raise Malformed(
                "record.unknown-field",
                f"{path}: a field that {cls.__name__} does not have",
                hint="the sender speaks another version of this format",
            )
    for name in hints:
        if name not in members:
            raise Malformed("record.missing-field", f"{path}: the field {name} is missing")
    record = cls(**{name: _field(hint, members[name], f"{path}.{name}") for name, hint in hints.items()})
    record.check()
    return record


def _field(hint: Any, value: encoding.Json, path: str) -> Any:
    origin = get_origin(hint)
    if origin is Annotated:
        base, *limits = get_args(hint)
        item = _field(base, value, path)
        for limit in limits:
            if isinstance(limit, Limit):
                _bounded(item, limit, path)
        return item
    if hasattr(hint, "__supertype__"):
        return _field(hint.__supertype__, value, path)
    if origin is Literal:
        if value in get_args(hint) and isinstance(value, str):
            return value
        raise _fail(path, "one of " + ", ".join(map(str, get_args(hint))), "another value")
    if origin is tuple:
        if not isinstance(value, list):
            raise _fail(path, "a list", type(value).__name__)
        return tuple(_field(get_args(hint)[0], part, f"{path}[{i}]") for i, part in enumerate(value))
    if origin in (Union, types.UnionType):
        return _union(get_args(hint), value, path)
    if hint is bytes:
        if not isinstance(value, str):
            raise _fail(path, _PLAIN[bytes], type(value).__name__)
        return encoding.unb64(value)
    if hint in (str, int, bool):
        if type(value) is not hint:
            raise _fail(path, _PLAIN[hint], type(value).__name__)
        return value
    if isinstance(hint, type) and issubclass(hint, Record):
        return from_value(hint, value, path)
    raise TypeError(f"{path}: {hint!r} is not a type that records support")


def _union(choices: tuple[Any, ...], value: encoding.Json, path: str) -> Any:
    if value is None:
        if type(None) in choices:
            return None
        raise _fail(path, "a value", "null")
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) == 1:
        return _field(rest[0], value, path)
    if isinstance(value, dict):
        for choice in rest:
            if isinstance(choice, type) and issubclass(choice, Record) and choice.KIND == value.get("kind"):
                return from_value(choice, value, path)
        raise Malformed("record.kind", f"{path}: an object of a kind that does not belong here")
    for choice in rest:
        base = get_args(choice)[0] if get_origin(choice) is Annotated else choice
        if type(value) is base or (isinstance(value, list) and get_origin(base) is tuple):
            return _field(choice, value, path)
    raise _fail(path, "one of the allowed types", type(value).__name__)


def _bounded(item: Any, limit: Limit, path: str) -> None:
    if item is None:
        return
    size = item if isinstance(item, int) else len(item)
    if not limit.least <= size <= limit.most:
        what = "a value" if isinstance(item, int) else "a length"
        raise _fail(path, f"{what} from {limit.least} to {limit.most}", "another")
    if limit.pattern and not re.match(limit.pattern, item):
        raise _fail(path, "text of the allowed form", "other text")
    if limit.unique and len(set(item)) != len(item):
        raise _fail(path, "each entry once", "a repetition")
