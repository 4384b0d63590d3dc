"""Frozen dataclasses to canonical JSON and back, strictly.

A record is a frozen, slotted, keyword-only dataclass that derives from ``Record``. Its field types are the schema:
``str int bool bytes``, ``Literal`` of texts, ``tuple[T, ...]``, another record, ``T | None``, and unions whose members
differ in their JSON type (records: in ``KIND``). ``Annotated`` adds a ``Limit``. A record with a ``KIND`` carries it as
the member ``kind``. Every field is always present: ``None`` is written ``null``, and unknown or missing members are
refused. ``encode(decode(C, x)) == x`` for every accepted x.

Limits and ``check`` hold for every instance, however it was made: a record that exists is well-formed, and what
``encode`` writes, ``decode`` accepts.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from kakoi.core import encoding
from kakoi.core.errors import Malformed
from kakoi.core.ids import ObjectId, object_id
from kakoi.core.limits import Decimal, Digest, Limit, Name, PartyRef, Prose, Seconds, Slug, Title

__all__ = [
    "Decimal",
    "Digest",
    "Limit",
    "Name",
    "PartyRef",
    "Prose",
    "Record",
    "Seconds",
    "Slug",
    "Title",
    "from_value",
    "to_value",
]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TYPE_NAMES: Final = {
    str: "text",
    int: "an integer",
    bool: "true or false",
    bytes: "bytes",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of every object that is encoded."""

    KIND: ClassVar[str] = ""
    MAX_BYTES: ClassVar[int] = encoding.MAX_OBJECT_BYTES

    def __post_init__(self) -> None:
        """Raise Malformed unless every field keeps its type and limits, and ``check`` passes."""
        cls = type(self)
        for name, shape in _schema(cls).items():
            shape.admit(getattr(self, name), f"{cls.__name__}.{name}")
        self.check()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The record of canonical bytes. Raises Malformed for anything that ``encode`` would not write."""
        record = from_value(cls, encoding.loads(data, limit=cls.MAX_BYTES), cls.__name__)
        if record.encode() != data:
            raise Malformed("record.encoding", f"{cls.__name__}: expected its canonical encoding, got another spelling")
        return record

    def encode(self) -> bytes:
        """Canonical bytes. Raises Malformed if they are more than ``MAX_BYTES``."""
        return encoding.dumps(to_value(self), limit=self.MAX_BYTES)

    @property
    def id(self) -> ObjectId:
        """SHA-256 of the canonical bytes."""
        return object_id(self.encode())

    def check(self) -> None:
        """Rules between fields; raises Malformed. Called for every instance. Nothing to check by default."""


T = TypeVar("T", bound=Record)


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


def from_value(cls: type[T], value: encoding.Json, path: str) -> T:
    """A record of class ``cls`` from a JSON value; ``path`` names the place in messages. Raises Malformed."""
    if not isinstance(value, dict):
        raise _fail(path, "an object", _type_of(value))
    members = dict(value)
    if cls.KIND and members.pop("kind", None) != cls.KIND:
        raise Malformed("record.kind", f"{path}: expected kind {cls.KIND}, got another kind or none")
    schema = _schema(cls)
    if not members.keys() <= schema.keys():
        raise Malformed(
            "record.unknown-field",
            f"{path}: expected the fields of {cls.__name__} only, got another one",
            hint="the sender speaks another version of this format",
        )
    for name in schema:
        if name not in members:
            raise Malformed(
                "record.missing-field",
                f"{path}: expected all fields of {cls.__name__}, got none named {name}",
                hint="the sender speaks another version of this format",
            )
    read = {name: shape.read(members[name], f"{path}.{name}") for name, shape in schema.items()}
    try:
        return cls(**read)
    except Malformed as error:
        raise Malformed(error.code, f"{path}: {error.message}", hint=error.hint) from None


def _fail(path: str, expected: str, got: str) -> Malformed:
    return Malformed("record.field", f"{path}: expected {expected}, got {got}", hint="ask the sender for a valid one")


def _type_of(item: object) -> str:
    """The type of a value in words; never the value."""
    return _TYPE_NAMES.get(type(item), "something else")


def _within(size: int, limit: Limit, path: str, what: str) -> None:
    if not limit.least <= size <= limit.most:
        raise _fail(path, f"{what} from {limit.least} to {limit.most}", "another")


class _Shape:
    """How one field type is read from JSON, and which Python values it admits."""

    mark: str
    """What tells it apart in a union: a record's ``KIND``, else the name of the JSON type."""

    def read(self, value: encoding.Json, path: str) -> Any:
        """The Python value of a JSON value. Bounds, and types that JSON shares with Python, are judged by ``admit``."""
        return value

    def admit(self, item: Any, path: str) -> None:
        """Raise Malformed unless ``item`` has exactly the right type and keeps the bounds."""
        raise NotImplementedError


class _Flag(_Shape):
    mark = "bool"

    def admit(self, item: Any, path: str) -> None:
        if type(item) is not bool:
            raise _fail(path, "true or false", _type_of(item))


class _Integer(_Shape):
    mark = "int"

    def __init__(self, limit: Limit | None) -> None:
        self.limit = limit or Limit(least=-encoding.MAX_INTEGER, most=encoding.MAX_INTEGER)

    def admit(self, item: Any, path: str) -> None:
        if type(item) is not int:
            raise _fail(path, "an integer", _type_of(item))
        _within(item, self.limit, path, "a value")


class _Text(_Shape):
    mark = "str"

    def __init__(self, limit: Limit | None) -> None:
        self.limit = limit or Limit(most=encoding.MAX_OBJECT_BYTES)
        self.pattern = re.compile(self.limit.pattern) if self.limit.pattern else None

    def admit(self, item: Any, path: str) -> None:
        if type(item) is not str:
            raise _fail(path, "text", _type_of(item))
        _within(len(item), self.limit, path, "a length")
        if _SURROGATE.search(item):
            raise _fail(path, "text", "text with a lone surrogate")
        if self.pattern is not None and not self.pattern.fullmatch(item):
            raise _fail(path, self.limit.form or "text of the allowed form", "other text")


class _Bytes(_Shape):
    mark = "str"

    def __init__(self, limit: Limit | None) -> None:
        self.limit = limit

    def read(self, value: encoding.Json, path: str) -> Any:
        if type(value) is not str:
            raise _fail(path, "base64", _type_of(value))
        return encoding.unb64(value)

    def admit(self, item: Any, path: str) -> None:
        if type(item) is not bytes:
            raise _fail(path, "bytes", _type_of(item))
        if self.limit is not None:
            _within(len(item), self.limit, path, "a length")


class _Choice(_Shape):
    """A ``Literal`` of texts."""

    mark = "str"

    def __init__(self, choices: tuple[Any, ...]) -> None:
        if not all(type(choice) is str for choice in choices):
            raise TypeError("expected a Literal of texts")
        self.choices = choices

    def admit(self, item: Any, path: str) -> None:
        if type(item) is not str or item not in self.choices:
            raise _fail(path, "one of " + ", ".join(self.choices), "another value")


class _List(_Shape):
    """``tuple[T, ...]``."""

    mark = "list"

    def __init__(self, part: _Shape, limit: Limit | None) -> None:
        self.part = part
        self.limit = limit or Limit(most=encoding.MAX_ITEMS)

    def read(self, value: encoding.Json, path: str) -> Any:
        if type(value) is not list:
            raise _fail(path, "a list", _type_of(value))
        _within(len(value), self.limit, path, "a length")
        return tuple(self.part.read(item, f"{path}[{i}]") for i, item in enumerate(value))

    def admit(self, item: Any, path: str) -> None:
        if type(item) is not tuple:
            raise _fail(path, "a tuple", _type_of(item))
        _within(len(item), self.limit, path, "a length")
        # Records have judged themselves: only their class counts, and no path has to be made for each of them.
        if not isinstance(self.part, _Nested) or any(type(part) is not self.part.cls for part in item):
            for i, part in enumerate(item):
                self.part.admit(part, f"{path}[{i}]")
        if self.limit.unique and len(set(item)) != len(item):
            raise _fail(path, "each entry once", "a repetition")


class _Nested(_Shape):
    """Another record. Its own constructor has judged it."""

    def __init__(self, cls: type[Record]) -> None:
        self.cls = cls
        self.mark = cls.KIND

    def read(self, value: encoding.Json, path: str) -> Any:
        return from_value(self.cls, value, path)

    def admit(self, item: Any, path: str) -> None:
        if type(item) is not self.cls:
            raise _fail(path, f"a {self.cls.__name__}", _type_of(item))


class _Union(_Shape):
    """``T | None``, and unions whose members can be told apart before they are read."""

    mark = ""

    def __init__(self, members: tuple[_Shape, ...], *, optional: bool) -> None:
        self.members = {member.mark: member for member in members}
        if len(self.members) != len(members) or (len(members) > 1 and "" in self.members):
            raise TypeError("expected a union whose members can be told apart")
        self.optional = optional

    def read(self, value: encoding.Json, path: str) -> Any:
        return None if value is None and self.optional else self._member(value, path).read(value, path)

    def admit(self, item: Any, path: str) -> None:
        if item is not None or not self.optional:
            self._member(item, path).admit(item, path)

    def _member(self, item: Any, path: str) -> _Shape:
        if len(self.members) == 1:
            return next(iter(self.members.values()))
        mark = _mark_of(item)
        if mark not in self.members:
            raise _fail(path, "one of the allowed types or kinds", "another")
        return self.members[mark]


def _mark_of(item: Any) -> str:
    if isinstance(item, Record):
        return item.KIND
    if isinstance(item, dict):
        kind = item.get("kind")
        return kind if isinstance(kind, str) else "object"
    name = type(item).__name__
    return {"tuple": "list", "bytes": "str"}.get(name, name)


_SCHEMAS: Final[dict[type[Record], dict[str, _Shape]]] = {}
"""Each class is examined once. Classes never change, so the order of filling does not matter."""


def _schema(cls: type[Record]) -> dict[str, _Shape]:
    """The shapes of a record's fields. Raises TypeError for a class that breaks the rules of this module."""
    if cls not in _SCHEMAS:
        hints = get_type_hints(cls, include_extras=True)
        names = [f.name for f in fields(cls)]
        if cls.KIND and "kind" in names:
            raise TypeError(f"{cls.__name__}: the member kind is taken")
        _SCHEMAS[cls] = {name: _shape(hints[name]) for name in names}
    return _SCHEMAS[cls]


def _shape(hint: Any, limit: Limit | None = None) -> _Shape:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _shape(arguments[0], _one_limit(limit, arguments[1:]))
    if hasattr(hint, "__supertype__"):
        return _shape(hint.__supertype__, limit)
    if hint in _LIMITED:
        return _LIMITED[hint](limit)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return _List(_shape(arguments[0]), limit)
    if limit is not None:
        raise TypeError(f"expected a type that can have a limit, got {hint!r}")
    return _unlimited(hint, origin, arguments)


def _unlimited(hint: Any, origin: Any, arguments: tuple[Any, ...]) -> _Shape:
    if hint is bool:
        return _Flag()
    if origin is Literal:
        return _Choice(arguments)
    if origin in (Union, types.UnionType):
        members = tuple(_shape(member) for member in arguments if member is not type(None))
        return _Union(members, optional=type(None) in arguments)
    if isinstance(hint, type) and issubclass(hint, Record):
        return _Nested(hint)
    raise TypeError(f"expected a type that records support, got {hint!r}")


_LIMITED: Final[dict[Any, Callable[[Limit | None], _Shape]]] = {str: _Text, int: _Integer, bytes: _Bytes}


def _one_limit(outer: Limit | None, notes: Iterable[Any]) -> Limit | None:
    found = [note for note in (*notes, outer) if isinstance(note, Limit)]
    if len(found) > 1:
        raise TypeError("expected at most one limit on a field")
    return found[0] if found else None
