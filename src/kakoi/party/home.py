"""The directory of one party.

card.dsse            its own card, public
cards/ID.dsse        cards it had before, under which contracts may still run
secrets.json         its keys, encrypted (``keystore``)
optouts/ID/N/         list.json (which list this is), key.wrapped, *.sealed: people who opted out of a data set; the highest N counts
datasets/ID.V/       manifest.dsse (manifest-CARD.dsse under a later card), key.wrapped, report.wrapped, *.sealed
codes/ID.V/          the same for sealed code
log.checkpoint       the last checkpoint of the transparency log it has seen
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Final

from kakoi.contract.code import CodeManifest
from kakoi.contract.model import Contract, DatasetManifest, PartyCard, Person, SealedFile
from kakoi.contract.sign import Signed, open_card, open_signed, seal
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import sha256
from kakoi.core.errors import Misuse, Refused
from kakoi.core.ids import PartyId
from kakoi.core.limits import Limit, Name, Seconds
from kakoi.core.records import Record
from kakoi.party.files import make_directory, read_limited, whole_or_absent, write_private
from kakoi.party.keystore import FileKeyStore, KeyStore, Unlock, require_absent

_ENVELOPE_LIMIT: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptList(Record):
    """Which list of people who opted out this is. Not signed: its key opens with exactly this."""

    KIND: ClassVar[str] = "kakoi/kept-opt-outs/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    dataset: Annotated[str, Limit(least=32, most=32, pattern=r"[0-9a-f]{32}\Z")]
    number: Annotated[int, Limit(least=1, most=2**31)]
    """Counts this data set's lists. Nobody else learns it."""
    name: Annotated[str, Limit(least=32, most=32, pattern=r"[0-9a-f]{32}\Z")]
    column: Name
    people: Annotated[int, Limit(most=2**31)]
    """How many are on it."""
    key_commitment: Annotated[bytes, Limit(least=32, most=32)]
    file: SealedFile
    created: Seconds


class PartyHome:
    """A party's directory, with its keys opened."""

    def __init__(self, path: Path, keys: KeyStore, card: Signed[PartyCard]) -> None:
        self.path = path
        self.keys = keys
        self.card = card
        self._earlier = _earlier_cards(path, card)

    @classmethod
    def create(cls, path: Path, *, name: str, unlock: Unlock, created: int) -> PartyHome:
        """A new party: keys and a card named ``name``. Raises Misuse if the directory already holds one.

        Written whole or not at all: after a full disk the same command can be given again.
        """
        for file in ("secrets.json", "card.dsse"):
            require_absent(path / file)
        keys, secrets = FileKeyStore.generate(unlock)
        public = keys.signer().verifying_key
        card = PartyCard(
            name=name,
            ed25519=public.ed25519,
            mldsa65=public.mldsa65,
            sealing=keys.opener().sealing_public,
            people=(),
            approvals_required=0,
            relying_party="",
            created=created,
        )
        envelope = seal(card, keys.signer())
        with whole_or_absent(path):
            make_directory(path)
            try:
                write_private(path / "card.dsse", envelope.encode(), mode=0o644)
                write_private(path / "secrets.json", secrets)
            except BaseException:
                (path / "card.dsse").unlink(missing_ok=True)
                raise
        return cls(path, keys, open_card(envelope))

    @classmethod
    def load(cls, path: Path, unlock: Unlock) -> PartyHome:
        """An existing party. Raises Misuse if there is none, Refused if card and keys do not belong together."""
        if not (path / "card.dsse").exists():
            raise Misuse("party.missing", f"expected a party in {path}, found none", hint="make one: kakoi party new")
        card = open_card(Envelope.decode(read_limited(path / "card.dsse", limit=_ENVELOPE_LIMIT)))
        keys = FileKeyStore.load(path / "secrets.json", unlock)
        if keys.signer().verifying_key != card.record.verifying_key:
            raise Refused("party.mismatch", "expected the card of these keys, got another party's card")
        return cls(path, keys, card)

    @property
    def id(self) -> str:
        """The party's id: that of its card."""
        return self.card.id

    @property
    def ids(self) -> tuple[PartyId, ...]:
        """The party's id, then those of its earlier cards: contracts made under them go on until they end."""
        return (PartyId(self.card.id), *(PartyId(identity) for identity in self._earlier))

    def id_in(self, contract: Contract) -> PartyId:
        """The id under which a contract names this party; its present one if it names none.

        An earlier card counts: contracts made under it go on until they end.
        """
        named = {party.party for party in contract.parties}
        return next((identity for identity in self.ids if identity in named), self.ids[0])

    def next_card(
        self, *, people: Iterable[Person], approvals_required: int, relying_party: str, created: int
    ) -> PartyCard:
        """This party's card with other people: the same name and keys, a new id. Nothing is signed or stored."""
        return replace(
            self.card.record,
            people=tuple(people),
            approvals_required=approvals_required,
            relying_party=relying_party,
            created=created,
        )

    def adopt(self, card: PartyCard) -> Signed[PartyCard]:
        """Make ``card`` this party's card: keep the earlier one, and sign the data sets' manifests anew under the new id.

        The order survives a crash: nothing names the new card before everything under it is on disk. Raises Refused
        if name or keys are not this party's.
        """
        before = self.card
        same = replace(before.record, people=(), approvals_required=0, relying_party="", created=card.created)
        if replace(card, people=(), approvals_required=0, relying_party="") != same:
            raise Refused("party.mismatch", "expected a card with this party's own name and keys, got another's")
        signed = open_card(seal(card, self.keys.signer()))
        for manifest in [item.record for item in self.datasets().values() if item.record.owner == PartyId(before.id)]:
            envelope = seal(replace(manifest, owner=PartyId(signed.id)), self.keys.signer())
            directory = self.dataset_directory(manifest.dataset, manifest.version)
            write_private(directory / f"manifest-{signed.id[:16]}.dsse", envelope.encode(), mode=0o644)
        for code in [item.record for item in self.codes().values() if item.record.owner == PartyId(before.id)]:
            envelope = seal(replace(code, owner=PartyId(signed.id)), self.keys.signer())
            directory = self.code_directory(code.code, code.version)
            write_private(directory / f"manifest-{signed.id[:16]}.dsse", envelope.encode(), mode=0o644)
        (self.path / "cards").mkdir(exist_ok=True, mode=0o700)
        write_private(self.path / "cards" / f"{before.id}.dsse", before.envelope.encode(), mode=0o644)
        write_private(self.path / "card.dsse", signed.envelope.encode(), mode=0o644)
        self.card = signed
        self._earlier = _earlier_cards(self.path, signed)
        return signed

    @property
    def earlier_cards(self) -> tuple[Signed[PartyCard], ...]:
        """Cards this party had before, oldest first."""
        return tuple(self._earlier.values())

    def dataset_directory(self, dataset: str, version: int) -> Path:
        """Where one version of a data set lives."""
        return self.path / "datasets" / f"{dataset}.{version}"

    def store_dataset(self, manifest: DatasetManifest, data_key: bytes, *, report: bytes = b"") -> Envelope:
        """Sign a manifest and keep it beside its wrapped key, and the validation report, which is for this party alone."""
        directory = self.dataset_directory(manifest.dataset, manifest.version)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        envelope = seal(manifest, self.keys.signer())
        wrapped = self.keys.wrap(data_key, context=_key_context(manifest.dataset, manifest.version))
        write_private(directory / "key.wrapped", wrapped)
        if report:
            context = _report_context(manifest.dataset, manifest.version)
            write_private(directory / "report.wrapped", self.keys.wrap(report, context=context))
        write_private(directory / "manifest.dsse", envelope.encode(), mode=0o644)
        return envelope

    def report(self, manifest: DatasetManifest) -> bytes | None:
        """The validation report of one's own data set, as it was kept when it was sealed; None if there is none."""
        path = self.dataset_directory(manifest.dataset, manifest.version) / "report.wrapped"
        if not path.exists():
            return None
        context = _report_context(manifest.dataset, manifest.version)
        return self.keys.unwrap(read_limited(path, limit=2 * _ENVELOPE_LIMIT), context=context)

    def datasets(self) -> dict[str, Signed[DatasetManifest]]:
        """This party's sealed data sets by manifest id."""
        out: dict[str, Signed[DatasetManifest]] = {}
        for path in sorted((self.path / "datasets").glob("*/manifest*.dsse")):
            envelope = Envelope.decode(read_limited(path, limit=_ENVELOPE_LIMIT))
            signed = open_signed(DatasetManifest, envelope, self.card)
            out[signed.id] = signed
        return out

    def code_directory(self, code: str, version: int) -> Path:
        """Where one version of sealed code lives."""
        return self.path / "codes" / f"{code}.{version}"

    def store_code(self, manifest: CodeManifest, key: bytes) -> Envelope:
        """Sign a code manifest and keep it beside its wrapped key."""
        directory = self.code_directory(manifest.code, manifest.version)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        envelope = seal(manifest, self.keys.signer())
        wrapped = self.keys.wrap(key, context=_key_context(manifest.sealed_as, manifest.version))
        write_private(directory / "key.wrapped", wrapped)
        write_private(directory / "manifest.dsse", envelope.encode(), mode=0o644)
        return envelope

    def codes(self) -> dict[str, Signed[CodeManifest]]:
        """This party's sealed code by manifest id."""
        out: dict[str, Signed[CodeManifest]] = {}
        for path in sorted((self.path / "codes").glob("*/manifest*.dsse")):
            envelope = Envelope.decode(read_limited(path, limit=_ENVELOPE_LIMIT))
            signed = open_signed(CodeManifest, envelope, self.card)
            out[signed.id] = signed
        return out

    def present_manifests(self) -> list[Envelope]:
        """Manifests of data sets and of sealed code under the present card."""
        me = PartyId(self.card.id)
        data = [signed.envelope for signed in self.datasets().values() if signed.record.owner == me]
        return data + [signed.envelope for signed in self.codes().values() if signed.record.owner == me]

    def code_key(self, manifest: CodeManifest) -> bytes:
        """The key of one's own sealed code. Raises Misuse if it is not here."""
        directory = self.code_directory(manifest.code, manifest.version)
        wrapped = read_limited(directory / "key.wrapped", limit=4096)
        return self.keys.unwrap(wrapped, context=_key_context(manifest.sealed_as, manifest.version))

    def store_opt_outs(self, kept: KeptList, key: bytes, ciphertext: bytes) -> None:
        """Keep the next list of people who opted out of a data set, whole or not at all. It counts from now on."""
        place = self.path / "optouts" / kept.dataset / str(kept.number)
        with whole_or_absent(place):
            make_directory(place)
            write_private(place / f"{kept.file.blob}.sealed", ciphertext)
            record = kept.encode()
            write_private(place / "key.wrapped", self.keys.wrap(key, context=_list_context(record)))
            write_private(place / "list.json", record)

    def opt_outs(self, dataset: str) -> KeptList | None:
        """The present list of people who opted out of a data set, whatever its version; None if there never was one."""
        numbers = [
            int(path.parent.name)
            for path in (self.path / "optouts" / dataset).glob("*/list.json")
            if path.parent.name.isdecimal()
        ]
        if not numbers:
            return None
        place = self.path / "optouts" / dataset / str(max(numbers))
        return KeptList.decode(read_limited(place / "list.json", limit=KeptList.MAX_BYTES))

    def opt_out_file(self, kept: KeptList) -> Path:
        """Where a list's ciphertext lies."""
        return self.path / "optouts" / kept.dataset / str(kept.number) / f"{kept.file.blob}.sealed"

    def opt_out_key(self, kept: KeptList) -> bytes:
        """A list's key. Raises the opaque ``crypto.cannot-open`` if what says which list it is was changed."""
        path = self.path / "optouts" / kept.dataset / str(kept.number) / "key.wrapped"
        return self.keys.unwrap(read_limited(path, limit=4096), context=_list_context(kept.encode()))

    def data_key(self, manifest: DatasetManifest) -> bytes:
        """The data key of one's own data set. Raises Misuse if it is not here."""
        directory = self.dataset_directory(manifest.dataset, manifest.version)
        wrapped = read_limited(directory / "key.wrapped", limit=4096)
        return self.keys.unwrap(wrapped, context=_key_context(manifest.dataset, manifest.version))


def _key_context(dataset: str, version: int) -> bytes:
    return f"{dataset}.{version}".encode()


def _list_context(record: bytes) -> bytes:
    """Binds a list's key to everything that is kept about the list."""
    return b"opt-out/" + sha256(record)


def _report_context(dataset: str, version: int) -> bytes:
    return f"report/{dataset}.{version}".encode()


def _earlier_cards(path: Path, card: Signed[PartyCard]) -> dict[str, Signed[PartyCard]]:
    """Earlier cards that the same keys signed, oldest first."""
    found = [
        open_card(Envelope.decode(read_limited(file, limit=_ENVELOPE_LIMIT)))
        for file in sorted((path / "cards").glob("*.dsse"))
    ]
    own = [item for item in found if item.record.verifying_key == card.record.verifying_key and item.id != card.id]
    return {item.id: item for item in sorted(own, key=lambda item: item.record.created)}
