"""C2SP signed notes (c2sp.org/signed-note) with Ed25519 keys, signature type 0x01.

A note is text, an empty line, and one line per signature. Lines under other keys are ignored, as the specification
demands: they are how witnesses cosign and how keys rotate. Stricter than the specification, a note that carries
two signatures under the one key we know is refused: nobody who is honest writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kakoi.core.crypto import ed25519_public, ed25519_sign, ed25519_verify
from kakoi.core.encoding import b64, sha256, unb64
from kakoi.core.errors import Malformed, Refused

MAX_NOTE_BYTES: Final = 256 * 1024
MAX_SIGNATURES: Final = 32
"""The specification asks for at least 16."""
_ED25519: Final = b"\x01"
_ID_BYTES: Final = 4
_DASH: Final = "— "


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: key name, key id (4 bytes) and the algorithm's own bytes. Nothing is verified yet."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> bytes:
        """The line as it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {b64(self.key_id + self.signature)}\n".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedNote:
    """A note as parsed. Its text means nothing until a signature was verified."""

    text: str
    signatures: tuple[NoteSignature, ...]


def _bad(what: str) -> Malformed:
    return Malformed("note.syntax", f"expected a C2SP signed note, got {what}")


def check_name(name: str) -> str:
    """A key name: not empty, no space of any kind, no plus sign, no control character. Raises Malformed."""
    if not name or "+" in name or any(char.isspace() or ord(char) < 0x20 for char in name):
        raise Malformed("note.key-name", "expected a key name without spaces and plus signs")
    return name


def key_id(name: str, public: bytes, algorithm: bytes = _ED25519) -> bytes:
    """The 4 bytes that, with its name, point to a key of the signature type ``algorithm`` (one byte)."""
    return sha256(name.encode("utf-8"), b"\n", algorithm, public)[:_ID_BYTES]


def verifier_key(name: str, public: bytes, algorithm: bytes = _ED25519) -> str:
    """The key as other C2SP tools take it: ``name+id+base64(type || key)``."""
    return f"{check_name(name)}+{key_id(name, public, algorithm).hex()}+{b64(algorithm + public)}"


def parse(note: bytes) -> UnverifiedNote:
    """Text and signature lines of a note. Raises Malformed."""
    if len(note) > MAX_NOTE_BYTES:
        raise _bad("more bytes than a note may have")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("bytes that are not UTF-8") from None
    if any(char < " " and char != "\n" for char in whole):
        raise _bad("control characters")
    text, separator, tail = whole.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise _bad("no signature lines")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise _bad(f"more than {MAX_SIGNATURES} signatures")
    return UnverifiedNote(text=text + "\n", signatures=tuple(map(_signature, lines)))


def _signature(line: str) -> NoteSignature:
    parts = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(parts) != 2:
        raise _bad("a line that is not a signature")
    blob = unb64(parts[1])
    if len(blob) <= _ID_BYTES:
        raise _bad("a signature that is too short")
    return NoteSignature(name=check_name(parts[0]), key_id=blob[:_ID_BYTES], signature=blob[_ID_BYTES:])


def verify(note: bytes, *, name: str, public: bytes) -> str:
    """The text of a note that the Ed25519 key ``public`` (32 bytes), called ``name``, signed exactly once.

    Raises Malformed for a bad note, Refused where the key's signature is missing or does not verify.
    """
    parsed = parse(note)
    wanted = (check_name(name), key_id(name, public))
    ours = [item.signature for item in parsed.signatures if (item.name, item.key_id) == wanted]
    if len(ours) > 1:
        raise _bad("two signatures under one key")
    if not ours:
        raise Refused(
            "note.signer",
            "expected a note signed by the known key, got one without its signature",
            hint="compare the log's key with the one in the contract",
        )
    ed25519_verify(public, parsed.text.encode("utf-8"), ours[0])
    return parsed.text


def sign(text: str, *, name: str, secret: bytes) -> bytes:
    """A note with ``text`` (ending in a newline), signed with the 32-byte Ed25519 seed ``secret``."""
    body = text.encode("utf-8")
    mine = NoteSignature(
        name=check_name(name), key_id=key_id(name, ed25519_public(secret)), signature=ed25519_sign(secret, body)
    )
    note = body + b"\n" + mine.line()
    if parse(note).text != text:
        raise _bad("text that a note cannot carry")
    return note
