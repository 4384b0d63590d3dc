"""Records refuse what their types and limits do not allow, whether decoded or made in Python."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest

from kakoi.core.errors import Malformed
from kakoi.core.records import Limit, Record, from_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Record):
    KIND: ClassVar[str] = "inner"

    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Record):
    KIND: ClassVar[str] = "other"

    flag: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(Record):
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Record):
    KIND: ClassVar[str] = "sample/v1"
    MAX_BYTES: ClassVar[int] = 400

    text: Annotated[str, Limit(least=1, most=3, pattern="[ab]+")]
    free: str
    number: Annotated[int, Limit(least=-1, most=5)]
    flag: bool
    raw: Annotated[bytes, Limit(least=1, most=2)]
    choice: Literal["x", "y"]
    many: Annotated[tuple[Annotated[str, Limit(most=2)], ...], Limit(most=2, unique=True)]
    inner: Inner
    maybe: Inner | None
    either: Inner | Other | Annotated[tuple[int, ...], Limit(most=1)] | int

    def check(self) -> None:
        if self.number == 4:
            raise Malformed("sample.four", "expected another number than 4")


GOOD: dict[str, Any] = {
    "text": "ab",
    "free": "é",
    "number": 5,
    "flag": False,
    "raw": b"\x00",
    "choice": "x",
    "many": ("p", "q"),
    "inner": Inner(n=1),
    "maybe": None,
    "either": Other(flag=True),
}
ENCODED = (
    '{"choice":"x","either":{"flag":true,"kind":"other"},"flag":false,"free":"é","inner":{"kind":"inner","n":1},'
    '"kind":"sample/v1","many":["p","q"],"maybe":null,"number":5,"raw":"AA==","text":"ab"}'
).encode()

BAD_IN_PYTHON: list[tuple[str, Any]] = [
    ("text", ""),
    ("text", "abab"),
    ("text", "c"),
    ("text", "ab\n"),
    ("text", b"ab"),
    ("text", None),
    ("free", "\ud800"),
    ("number", 6),
    ("number", -2),
    ("number", True),
    ("number", 1.0),
    ("number", "1"),
    ("number", 4),
    ("flag", 0),
    ("flag", None),
    ("raw", b""),
    ("raw", b"abc"),
    ("raw", "AA=="),
    ("raw", bytearray(b"a")),
    ("choice", "z"),
    ("choice", None),
    ("many", ["p"]),
    ("many", ("p", "p")),
    ("many", ("p", "q", "r")),
    ("many", ("ppp",)),
    ("many", "p"),
    ("inner", None),
    ("inner", Other(flag=True)),
    ("inner", {"kind": "inner", "n": 1}),
    ("maybe", Other(flag=True)),
    ("either", None),
    ("either", True),
    ("either", "x"),
    ("either", (1, 2)),
    ("either", 2**53),
]

BAD_IN_JSON: list[tuple[bytes, bytes]] = [
    (b'"number":5', b'"number":true'),
    (b'"number":5', b'"number":"5"'),
    (b'"number":5', b'"number":null'),
    (b'"flag":false', b'"flag":0'),
    (b'"raw":"AA=="', b'"raw":"AB=="'),
    (b'"raw":"AA=="', b'"raw":"AA"'),
    (b'"raw":"AA=="', b'"raw":""'),
    (b'"raw":"AA=="', b'"raw":[0]'),
    (b'"choice":"x"', b'"choice":["x"]'),
    (b'"many":["p","q"]', b'"many":{"p":1}'),
    (b'"many":["p","q"]', b'"many":["q","q"]'),
    (b'"many":["p","q"]', b'"many":[null]'),
    (b'"maybe":null', b'"maybe":false'),
    (b'"maybe":null', b'"maybe":{}'),
    (b'"kind":"sample/v1"', b'"kind":"sample/v2"'),
    (b'"kind":"sample/v1",', b""),
    (b'"kind":"inner",', b""),
    (b'"kind":"other"', b'"kind":"inner"'),
    (b'"kind":"other"', b'"kind":"int"'),
    (b'"kind":"other"', b'"kind":["other"]'),
    (b'{"flag":true,"kind":"other"}', b"{}"),
    (b'{"flag":true,"kind":"other"}', b"1.0"),
    (b'"maybe":null,', b""),
    (b'"maybe":null,', b'"maybe":null,"mayhem":1,'),
    (b'"number":5', b'"number":4'),
]


def test_encoding_is_the_canonical_one() -> None:
    record = Sample(**GOOD)
    assert record.encode() == ENCODED
    assert Sample.decode(ENCODED) == record
    assert hash(Sample.decode(ENCODED)) == hash(record)


@pytest.mark.parametrize(("value", "text"), [(7, b"7"), ((), b"[]"), (Inner(n=-3), b'{"kind":"inner","n":-3}')])
def test_members_of_unions_are_told_apart(value: Any, text: bytes) -> None:
    record = Sample(**{**GOOD, "either": value})
    assert b'"either":' + text in record.encode()
    assert Sample.decode(record.encode()) == record


@pytest.mark.parametrize(("name", "value"), BAD_IN_PYTHON)
def test_instances_keep_their_limits(name: str, value: Any) -> None:
    with pytest.raises(Malformed):
        Sample(**{**GOOD, name: value})
    with pytest.raises(Malformed):
        dataclasses.replace(Sample(**GOOD), **{name: value})


@pytest.mark.parametrize(("good", "bad"), BAD_IN_JSON)
def test_decoding_keeps_the_limits(good: bytes, bad: bytes) -> None:
    assert ENCODED.count(good) == 1
    with pytest.raises(Malformed):
        Sample.decode(ENCODED.replace(good, bad))


def test_rules_between_fields_hold_for_every_instance() -> None:
    with pytest.raises(Malformed) as made:
        Sample(**{**GOOD, "number": 4})
    with pytest.raises(Malformed) as decoded:
        Sample.decode(ENCODED.replace(b'"number":5', b'"number":4'))
    assert made.value.code == decoded.value.code == "sample.four"


def test_what_decode_would_refuse_is_not_encoded() -> None:
    with pytest.raises(Malformed) as error:
        Sample(**{**GOOD, "free": "x" * 400}).encode()
    assert error.value.code == "encoding.size"


def test_messages_name_the_place_and_not_the_value() -> None:
    with pytest.raises(Malformed) as error:
        Sample.decode(ENCODED.replace(b'"many":["p","q"]', b'"many":["p","secret"]'))
    assert "Sample" in error.value.message
    assert "many[1]" in error.value.message
    assert "secret" not in str(error.value)


def test_members_must_be_an_object() -> None:
    values: tuple[Any, ...] = ([], "x", None, 1, True)
    for value in values:
        with pytest.raises(Malformed):
            from_value(Sample, value, "somewhere")


def _class(annotation: Any, kind: str = "") -> type[Record]:
    name = "kind" if kind else "field"
    made = dataclasses.make_dataclass(
        "Wrong",
        [(name, annotation)],
        bases=(Record,),
        frozen=True,
        slots=True,
        kw_only=True,
        namespace={"KIND": kind},
    )
    assert issubclass(made, Record)
    return made


WRONG_CLASSES: dict[str, tuple[Any, str]] = {
    "float": (float, ""),
    "dict": (dict[str, int], ""),
    "list": (list[int], ""),
    "pair": (tuple[int, int], ""),
    "any": (Any, ""),
    "literal number": (Literal[1], ""),
    "text and bytes": (str | bytes, ""),
    "records that cannot be told apart": (Inner | Plain, ""),
    "class that is no record": (type("X", (), {}), ""),
    "limit on a union": (Annotated[int | None, Limit(most=1)], ""),
    "limit on a boolean": (Annotated[bool, Limit(most=1)], ""),
    "two limits": (Annotated[int, Limit(most=1), Limit(most=2)], ""),
    "field named kind": (int, "wrong/v1"),
}


@pytest.mark.parametrize("name", WRONG_CLASSES)
def test_classes_that_have_no_one_encoding_are_our_bug(name: str) -> None:
    cls = _class(*WRONG_CLASSES[name])
    with pytest.raises(TypeError):
        cls(**{dataclasses.fields(cls)[0].name: 1})
