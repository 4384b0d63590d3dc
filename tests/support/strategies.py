"""Hypothesis strategies for records, made from their type hints and limits alone.

``records(C)`` builds valid instances of any ``Record`` class. Rules between fields (``check``) that chance would
not meet are met by an entry in ``REPAIRS``.
"""

from __future__ import annotations

import hashlib
import re
import types
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hypothesis import reject
from hypothesis import strategies as st

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy
from kakoi.contract.code import CodeManifest
from kakoi.contract.model import (
    Analysis,
    Approval,
    Column,
    Contract,
    DatasetManifest,
    LogKey,
    Output,
    Parameter,
    PartyCard,
    SealedFile,
    TableUse,
    Withdrawal,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.core.crypto import SEALING_SECRET, SIGNING_SECRET, SealingKey, SigningKey
from kakoi.core.encoding import MAX_INTEGER
from kakoi.core.errors import Malformed
from kakoi.core.ids import HEX_DIGEST
from kakoi.core.records import Limit, Record

T = TypeVar("T", bound=Record)
Members = dict[str, Any]

SIGNERS: Final = tuple(SigningKey(bytes([i]) * SIGNING_SECRET) for i in (1, 2, 3))
OPENERS: Final = tuple(SealingKey(bytes([i]) * SEALING_SECRET) for i in (1, 2, 3))
_MOST_PARTS: Final = 2
_MOST_CHARACTERS: Final = 20
_SHORT: Final = 16


def records(cls: type[T]) -> st.SearchStrategy[T]:
    """Valid instances of ``cls``."""
    hints = get_type_hints(cls, include_extras=True)
    members = st.fixed_dictionaries({f.name: _field(hints[f.name]) for f in fields(cls)})
    return members.map(lambda drawn: _build(cls, drawn))


def _build(cls: type[T], drawn: Members) -> T:
    try:
        return cls(**(REPAIRS[cls](dict(drawn)) if cls in REPAIRS else drawn))
    except Malformed:
        reject()


def _field(hint: Any, limit: Limit | None = None) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _field(arguments[0], next(note for note in arguments[1:] if isinstance(note, Limit)))
    if hasattr(hint, "__supertype__"):
        return _field(hint.__supertype__, limit)
    if origin is tuple:
        return _list(_field(arguments[0]), limit or Limit(most=_MOST_PARTS))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([st.none() if member is type(None) else _field(member) for member in arguments])
    if isinstance(hint, type) and issubclass(hint, Record):
        return records(hint)
    plain: dict[Any, Callable[[Limit | None], st.SearchStrategy[Any]]] = {
        bool: lambda _: st.booleans(),
        int: lambda bounds: st.integers(*((bounds.least, bounds.most) if bounds else (-MAX_INTEGER, MAX_INTEGER))),
        bytes: _bytes,
        str: _text,
    }
    return plain[hint](limit)


def _list(part: st.SearchStrategy[Any], limit: Limit) -> st.SearchStrategy[Any]:
    most = min(limit.most, max(limit.least, _MOST_PARTS))
    return st.lists(part, min_size=limit.least, max_size=most, unique=limit.unique).map(tuple)


def _bytes(limit: Limit | None) -> st.SearchStrategy[bytes]:
    """Long byte strings are made from a short seed: their content does not matter, and drawing them is slow."""
    bounds = limit or Limit(most=_MOST_CHARACTERS)
    most = min(bounds.most, bounds.least + _MOST_CHARACTERS)
    if bounds.least < _SHORT:
        return st.binary(min_size=bounds.least, max_size=most)
    sizes = st.integers(bounds.least, most)
    return st.builds(lambda seed, size: hashlib.shake_128(b"%d" % seed).digest(size), st.integers(0, 2**32), sizes)


def _text(limit: Limit | None) -> st.SearchStrategy[str]:
    bounds = limit or Limit(most=_MOST_CHARACTERS)
    most = min(bounds.most, bounds.least + _MOST_CHARACTERS)
    if not bounds.pattern:
        return st.text(st.characters(exclude_categories=["Cs"]), min_size=bounds.least, max_size=most)
    if bounds.pattern == HEX_DIGEST.pattern:
        return st.integers(0, 2**32).map(lambda seed: hashlib.sha256(b"%d" % seed).hexdigest())
    pattern = re.compile(bounds.pattern)
    if "[^" in bounds.pattern:  # from_regex is very slow on complements of large sets
        drawn = st.text(
            st.sampled_from("aZ09 _-.,;:!äé東京病院\U0001f3e5\U00020bb7"), min_size=bounds.least, max_size=most
        )
    else:
        drawn = st.from_regex(pattern, fullmatch=True)
    return drawn.filter(lambda text: bounds.least <= len(text) <= bounds.most and bool(pattern.fullmatch(text)))


# Rules between fields ------------------------------------------------------------------------------------------------


def _first_of_each(items: tuple[T, ...], name: Callable[[T], object]) -> tuple[T, ...]:
    return tuple({name(item): item for item in items}.values())


def _card(members: Members) -> Members:
    which = members["created"] % len(SIGNERS)
    key = SIGNERS[which].verifying_key
    people = _first_of_each(members["people"], lambda person: person.credential_id)
    return members | {
        "ed25519": key.ed25519,
        "mldsa65": key.mldsa65,
        "sealing": OPENERS[which].sealing_public,
        "people": people,
        "approvals_required": members["approvals_required"] % (len(people) + 1),
        "relying_party": "broker.example" if people else "",
    }


def _column(members: Members) -> Members:
    codes = _first_of_each(members["codes"], lambda code: code.value)
    values = {code.value for code in codes}
    numeric = members["type"] in ("integer", "number")
    return members | {
        "codes": codes,
        "missing": tuple(text for text in members["missing"] if text not in values),
        "minimum": members["minimum"] if numeric else None,
        "maximum": None,
    }


def _sealed_file(members: Members) -> Members:
    segments = members["size"] % 3 + 1
    size = (segments - 1) * 1024 * 1024 + 1000
    return members | {"size": size, "segment_digests": (members["segment_digests"] * segments)[: 32 * segments]}


def _manifest(members: Members) -> Members:
    columns = _first_of_each(members["columns"], lambda column: column.name.lower())
    files = _first_of_each(members["files"], lambda file: file.name.lower())
    person = columns[0].name if members["person_column"] else None
    return members | {"columns": columns, "files": files, "person_column": person}


def _parameter(members: Members) -> Members:
    if members["type"] == "string":
        return members | {"minimum": None, "maximum": None, "choices": members["choices"] or ("one",)}
    return members | {"minimum": "-1.5", "maximum": members["maximum"] or "7", "choices": ()}


def _output(members: Members) -> Members:
    columns = _first_of_each(members["columns"], lambda column: column.name.lower())
    make = type(columns[0])
    table = members["shape"] == "table"
    roles = ["count" if table and i == 0 else "value" for i in range(len(columns))]
    return members | {
        "columns": tuple(make(name=c.name, role=r) for c, r in zip(columns, roles, strict=True)),
        "parameters": 0 if table else members["parameters"],
    }


def _analysis(members: Members) -> Members:
    outputs = _first_of_each(members["outputs"], lambda output: output.name.lower())
    if outputs[0].shape != "table":
        members = members | {"engine": "python"}
    if members["sealed_code"] is not None:
        members = members | {"engine": "python", "source": ""}
    elif not members["source"]:
        members = members | {"source": "x"}
    return members | {
        "reads": _first_of_each(members["reads"], lambda use: use.table.lower()),
        "parameters": _first_of_each(members["parameters"], lambda parameter: parameter.name.lower()),
        "outputs": outputs[:1] if members["engine"] == "sql" else outputs,
    }


def _contract(members: Members) -> Members:
    parties = _first_of_each(members["parties"], lambda entry: entry.party)
    owner = parties[0].party
    code = _first_of_each(members["code"], lambda entry: entry.manifest)
    roles = ("owner", "code-owner") if code else ("owner",)
    owners = (type(parties[0])(party=owner, roles=roles), *parties[1:])
    data = tuple(type(e)(manifest=e.manifest, owner=owner, rules=e.rules) for e in members["data"])
    return members | {
        "parties": owners,
        "data": _first_of_each(data, lambda entry: entry.manifest),
        "analyses": _first_of_each(members["analyses"], lambda entry: entry.analysis),
        "code": tuple(type(e)(manifest=e.manifest, owner=owner, reviewers=()) for e in code),
        "recipients": (owners[-1].party,),
        "drafter": owner,
        "not_before": members["expires"] // 2,
        "expires": members["expires"] + 1 if members["expires"] < 2**40 else members["expires"],
        "version": 1 if members["supersedes"] is None else 2,
    }


def _platform(members: Members) -> Members:
    return members | {
        "measurements": _first_of_each(members["measurements"], lambda entry: entry.name),
        "settings": _first_of_each(members["settings"], lambda entry: entry.name),
    }


def _code_manifest(members: Members) -> Members:
    files = _first_of_each(members["files"], lambda file: file.name.lower())
    first = replace(files[0], name="analysis.py")
    return members | {"files": (first, *(f for f in files[1:] if f.name.lower() != "analysis.py"))}


REPAIRS: Final[dict[type[Record], Callable[[Members], Members]]] = {
    Analysis: _analysis,
    Approval: lambda m: m | {"assertions": _first_of_each(m["assertions"], lambda a: a.credential_id)},
    AttestationPolicy: lambda m: m | {"accepted": _first_of_each(m["accepted"], lambda entry: entry.platform)},
    CodeManifest: _code_manifest,
    Column: _column,
    Contract: _contract,
    DatasetManifest: _manifest,
    DisclosureRules: lambda m: (
        m | {"parameters_per_person": "0.33", "epsilon_per_run": "0.5", "epsilon_budget": "12.25"}
    ),
    LogKey: lambda m: m | {"ed25519": SIGNERS[0].verifying_key.ed25519},
    Output: _output,
    Parameter: _parameter,
    PartyCard: _card,
    PlatformPolicy: _platform,
    SealedFile: _sealed_file,
    TableUse: lambda m: m | {"columns": tuple({c.lower(): c for c in m["columns"]}.values())},
    Withdrawal: lambda m: m | ({"dataset": None} if m["contract"] else {"dataset": "0" * 64}),
}
