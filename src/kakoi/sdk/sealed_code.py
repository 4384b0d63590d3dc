"""Sealing code and models, and letting a reviewer read them. Nothing here runs or unpickles anything."""

from __future__ import annotations

import io
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kakoi.contract.code import ENTRY_FILE, MAX_CODE_BYTES, CodeManifest, CodeReview, CodeShare, share_info
from kakoi.contract.model import PartyCard, SealedFile
from kakoi.contract.sign import Signed, open_card, open_signed, seal
from kakoi.core import crypto
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.core.ids import BlobId, ObjectId, PartyId, parse_id
from kakoi.dataset.format import (
    DATA_KEY_BYTES,
    NONCE_PREFIX_BYTES,
    SALT_BYTES,
    associated_data,
    sealed_key_commitment,
)
from kakoi.dataset.open import check_data_key, open_stream
from kakoi.dataset.seal import SealingWriter
from kakoi.net.client import HubClient
from kakoi.party.files import read_limited, whole_or_absent, write_private
from kakoi.party.home import PartyHome

MAX_SOURCE_BYTES: Final = 256 * 1024


def seal_code(
    home: PartyHome,
    source: Path,
    files: Sequence[Path],
    *,
    title: str,
    description: str,
    created: int,
    replaces: str = "",
) -> Envelope:
    """Seal a source and what it needs (models, tables) into the party's directory. Nothing leaves this machine.

    ``replaces`` is the manifest of the version before. Raises Malformed for a source that cannot be one, Misuse for bad files.
    """
    named = [(ENTRY_FILE, _source(source)), *((path.name, read_limited(path, limit=MAX_CODE_BYTES)) for path in files)]
    code, version = _identity(home, replaces)
    key = secrets.token_bytes(DATA_KEY_BYTES)
    sealed_as = f"code/{code}"
    with whole_or_absent(home.code_directory(code, version)) as directory:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        manifest = CodeManifest(
            owner=PartyId(home.card.id),
            code=code,
            version=version,
            title=title,
            description=description,
            format="tink-aes256-gcm-hkdf-1mb/files",
            key_commitment=sealed_key_commitment(key, dataset=sealed_as, version=version),
            files=tuple(_seal_file(directory, name, data, key, sealed_as, version) for name, data in named),
            created=created,
        )
        return home.store_code(manifest, key)


def _source(path: Path) -> bytes:
    """The source as it will be compiled. Raises Malformed: better here than inside, where nobody sees why."""
    data = read_limited(path, limit=MAX_SOURCE_BYTES)
    try:
        text = data.decode("utf-8")
        compile(text, path.name, "exec", dont_inherit=True)
    except (UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise Malformed("code.source", f"expected Python source in UTF-8 in {path.name}, got: {error}") from None
    if "def analyse(" not in text:
        raise Malformed(
            "code.source",
            f"expected {path.name} to define analyse(tables, parameters, files)",
            hint="docs/formats/engine.md shows what it gets and returns",
        )
    return data


def _identity(home: PartyHome, replaces: str) -> tuple[str, int]:
    if not replaces:
        return secrets.token_hex(16), 1
    known = home.codes()
    if replaces not in known:
        raise Misuse("code.unknown", "expected sealed code of this party to replace, got an unknown id")
    before = known[replaces].record
    return before.code, before.version + 1


def _seal_file(directory: Path, name: str, data: bytes, key: bytes, sealed_as: str, version: int) -> SealedFile:
    kept = io.BytesIO()
    with SealingWriter(
        kept,
        data_key=key,
        associated_data=associated_data(sealed_as, version, name),
        salt=secrets.token_bytes(SALT_BYTES),
        nonce_prefix=secrets.token_bytes(NONCE_PREFIX_BYTES),
    ) as writer:
        writer.write(data)
    made = writer.summary
    write_private(directory / f"{made.blob}.sealed", kept.getvalue())
    return SealedFile(name=name, blob=ObjectId(made.blob), size=made.size, segment_digests=made.segment_digests)


def upload_code(client: HubClient, home: PartyHome, signed: Signed[CodeManifest]) -> None:
    """Give ciphertext and manifest to the hub: ciphertext first."""
    manifest = signed.record
    directory = home.code_directory(manifest.code, manifest.version)
    client.put_object(home.card.envelope)
    for file in manifest.files:
        data = read_limited(directory / f"{file.blob}.sealed", limit=MAX_CODE_BYTES)
        client.put_blob(BlobId(file.blob), io.BytesIO(data), file.size)
    client.put_object(signed.envelope)


def share(home: PartyHome, signed: Signed[CodeManifest], reviewer: Signed[PartyCard]) -> CodeShare:
    """The key of one's own code for one reviewer, who can then read all of it. Whoever it is given to can open nothing else."""
    key = home.code_key(signed.record)
    info = share_info(code=signed.id, reviewer=reviewer.id)
    return CodeShare(
        code=signed.id, reviewer=PartyId(reviewer.id), sealed=crypto.seal(key, reviewer.record.sealing, info=info)
    )


def open_shared(client: HubClient, home: PartyHome, shared: CodeShare) -> dict[str, bytes]:
    """All files of the sealed code that was shared with this party, decrypted and checked against the signed manifest.

    Raises Refused if it was shared with somebody else, or if storage or owner changed anything.
    """
    if shared.reviewer not in home.ids:
        raise Refused("code.reviewer", "expected code that was shared with this party, got another's share")
    signed = fetch_code(client, parse_id(shared.code))
    manifest = signed.record
    key = home.keys.opener().open(shared.sealed, info=share_info(code=signed.id, reviewer=shared.reviewer))
    check_data_key(key, commitment=manifest.key_commitment, dataset=manifest.sealed_as, version=manifest.version)
    found = {}
    for file in manifest.files:
        chunks = open_stream(
            client.stream_blob(BlobId(file.blob), most=file.size),
            data_key=key,
            associated_data=associated_data(manifest.sealed_as, manifest.version, file.name),
            size=file.size,
            segment_digests=file.segment_digests,
        )
        found[file.name] = b"".join(chunks)
    return found


def fetch_code(client: HubClient, identity: ObjectId) -> Signed[CodeManifest]:
    """A code manifest with its owner's signature verified. Raises Malformed or Refused."""
    envelope = client.get_object(identity)
    card = open_card(client.get_object(parse_id(CodeManifest.decode(envelope.payload).owner)))
    return open_signed(CodeManifest, envelope, card)


def review(client: HubClient, home: PartyHome, code: ObjectId, statement: str, now: int) -> Envelope:
    """Sign and publish what this party vouches for about sealed code it has read."""
    if not statement.strip():
        raise Misuse(
            "code.statement", "expected a statement in plain words", hint="data owners read it instead of the code"
        )
    record = CodeReview(code=code, reviewer=PartyId(home.card.id), statement=statement, reviewed_at=now)
    envelope = seal(record, home.keys.signer())
    client.put_object(home.card.envelope)
    client.put_object(envelope)
    return envelope
