"""Every leaf of a nested signed structure, altered: through lists, objects, envelopes' payloads and text files inside.

Containers are encoded again canonically, so what is altered still parses; nobody has the keys to sign it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from kakoi.core import encoding
from kakoi.core.encoding import Json
from kakoi.core.errors import Malformed

_HEX = "0123456789abcdef"


def altered_leaves(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Path of each leaf in canonical JSON ``data``, and the bytes with only that leaf changed."""
    for path, value in _values(encoding.loads(data, limit=len(data)), ""):
        yield path, _dumps(value)


def _dumps(value: Json) -> bytes:
    """As ``encoding.dumps``, without its checks: what is altered was checked when it was read."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _values(value: Json, path: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for key, item in value.items():
            for where, changed in _values(item, f"{path}.{key}"):
                yield where, {**value, key: changed}
    elif isinstance(value, list):
        for number, item in enumerate(value):
            for where, changed in _values(item, f"{path}[{number}]"):
                yield where, [*value[:number], changed, *value[number + 1 :]]
    elif isinstance(value, str):
        yield from _texts(value, path)
    else:
        yield path, _scalar(value)


def _scalar(value: Json) -> Json:
    if value is None:
        return "0"
    return not value if isinstance(value, bool) else value + 1


def _texts(text: str, path: str) -> Iterator[tuple[str, Json]]:
    """Text: what lies inside it if it is base64 of more, else itself with one character changed."""
    raw = _unb64(text)
    inner = _inner(raw)
    if inner is not None:
        for where, changed in _values(inner, path + "/"):
            yield where, encoding.b64(_dumps(changed))
    elif _is_lines(raw):
        lines = raw.split(b"\n")
        for number, line in enumerate(lines):
            if line:
                changed = [*lines[:number], _other(line.decode()).encode(), *lines[number + 1 :]]
                yield f"{path}/{number}", encoding.b64(b"\n".join(changed))
    elif raw and not _is_hex(text):
        middle = len(raw) // 2
        yield path, encoding.b64(raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :])
    else:
        yield path, _other(text)


def _unb64(text: str) -> bytes:
    try:
        return encoding.unb64(text) if len(text) >= 16 else b""
    except Malformed:
        return b""


def _inner(raw: bytes) -> Json:
    try:
        value = encoding.loads(raw, limit=len(raw)) if raw[:1] in (b"{", b"[") else None
    except Malformed:
        return None
    return value if isinstance(value, (dict, list)) else None


def _is_lines(raw: bytes) -> bool:
    """Text of several lines, such as a log proof."""
    try:
        return raw.count(b"\n") > 2 and raw.decode("utf-8").replace("\n", "").isprintable()
    except UnicodeDecodeError:
        return False


def _is_hex(text: str) -> bool:
    return set(text) <= set(_HEX)


def _other(text: str) -> str:
    """Text of the same length and look, with its last letter or digit changed; a letter if there is none."""
    for at in range(len(text) - 1, -1, -1):
        char = text[at]
        if char.isascii() and char.isalnum():
            other = "1" if char == "0" else "0" if char.isdigit() else "b" if char in "aA" else "a"
            return text[:at] + other + text[at + 1 :]
    return text + "a"
