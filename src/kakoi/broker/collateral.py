"""Where an owner's broker gets vendors' endorsements: a file, or the vendors, with everything they said kept on disk.

Fetching is not judging. A kept answer is the vendor's own word, which is checked before it is kept; whether a platform
is wanted, and how old its endorsements may be, is judged by the contract's policy when a session is appraised.

When to ask (docs/collateral.md): an answer younger than its refresh time is used as it is. An older one is asked for
anew; if nobody answers, or the answer is not the vendor's, or older than what is kept, the kept one is used as long as
it is in its own window, and ``tell`` is told. Nothing that is out of its window is ever given out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from kakoi.attest.jose import MAX_JSON_BYTES
from kakoi.attest.report import KEY_SET, TOKEN, Collateral, Evidence, Part
from kakoi.broker import collateral_amd, collateral_aws, collateral_intel
from kakoi.broker.collateral_http import Get, service_url
from kakoi.broker.collateral_pieces import PINNED, Anchors, Services, Want
from kakoi.broker.collateral_wants import wants
from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.party.files import read_limited, write_private
from kakoi.wire.collateral import Piece

SKEW_SECONDS: Final = 60
"""How far ahead of this machine's clock the machine that fetched a bundle may be."""
QUIET_SECONDS: Final = 60
"""For how long a service that did not answer is left alone."""
VENDORS: Final = {"intel": collateral_intel.VENDOR, "amd": collateral_amd.VENDOR, "aws": collateral_aws.VENDOR}
_NOBODY_THERE: Final = ("collateral.unreachable", "collateral.timeout", "collateral.tls")
Tell = Callable[[KakoiError], None]
"""Hears why a kept answer was used instead of a fresh one."""


class FileCollateral:
    """Endorsements from a file that somebody put there; read anew for each session, so that it can be replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """The file's endorsements, whatever the evidence. Staleness is judged in appraisal, by the contract's policy."""
        return Collateral.decode(read_limited(self._path, limit=Collateral.MAX_BYTES))


class Source(Protocol):
    """Where the owner gets vendors' endorsements: ``broker.service.CollateralSource``."""

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """Current endorsements for this evidence. Raises Unavailable."""
        ...


class SplitCollateral:
    """A file for the software platform, whose vendor nobody can ask, and another source for hardware."""

    def __init__(self, *, software: Source, hardware: Source) -> None:
        self._software, self._hardware = software, hardware

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """Endorsements from the source for this kind. Raises what it raises."""
        source = self._software if evidence.platform == "software" else self._hardware
        return source.collateral(evidence, now)


class WithTokenKeys:
    """Another source, and the key sets of attestation services from files, for evidence that brings their tokens.

    A file is read anew for each session, so that it can be replaced. Nothing in it is believed: a key counts only if the
    contract anchors it.
    """

    def __init__(self, inner: Source, files: Mapping[str, Path]) -> None:
        self._inner, self._files = inner, files

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """Endorsements, with a part ``jwks.SERVICE`` for each token. Raises what the source raises; Unavailable for a missing file."""
        found = self._inner.collateral(evidence, now)
        given = {part.name.removeprefix(TOKEN) for part in evidence.parts if part.name.startswith(TOKEN)}
        known = {part.name for part in found.parts}
        sets = [
            Part(name=f"{KEY_SET}{service}", data=_key_set(self._files[service]))
            for service in sorted(given & self._files.keys())
            if f"{KEY_SET}{service}" not in known
        ]
        return Collateral(parts=(*found.parts, *sets)) if sets else found


def _key_set(path: Path) -> bytes:
    try:
        return read_limited(path, limit=MAX_JSON_BYTES)
    except Misuse as error:
        raise Unavailable(
            "collateral.token-file", f"expected a key set: {error.message}", hint="--token-keys names the file"
        ) from None


def services(text: str) -> Services:
    """``intel,amd=https://kds.example,aws``: a bare name is the vendor's own service. Raises Misuse."""
    found: dict[str, str] = {}
    for entry in filter(None, (item.strip() for item in text.split(","))):
        name, given, url = entry.partition("=")
        if name not in VENDORS or name in found:
            raise Misuse(
                "collateral.source",
                f"expected each of {', '.join(VENDORS)} at most once, alone or with =URL, got something else",
                hint="for instance --collateral-from intel,amd=https://kds.example.org,aws",
            )
        found[name] = service_url(url) if given else VENDORS[name]
    return Services(**found)


class KeptPieces:
    """What vendors said, in one directory of the owner: a file for each question, whole or absent."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, asked: str) -> Path:
        return self._directory / f"{sha256(asked.encode('ascii')).hex()}.json"

    def read(self, asked: str) -> Piece | None:
        """The kept answer, if there is one that can be read. Raises Unavailable if the disk fails."""
        path = self._path(asked)
        if not path.is_file():
            return None
        try:
            piece = Piece.decode(read_limited(path, limit=Piece.MAX_BYTES))
        except (Malformed, Misuse):
            return None
        return piece if piece.asked == asked else None

    def write(self, piece: Piece) -> None:
        """Keep an answer in the place of an earlier one. Raises Unavailable when the disk is full."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path(piece.asked), piece.encode())


class KeptCollateral:
    """Vendors' endorsements: kept ones, renewed from the services that may be asked."""

    def __init__(
        self,
        kept: KeptPieces,
        *,
        services: Services,
        get: Get,
        tell: Tell,
        anchors: Anchors = PINNED,
    ) -> None:
        self._kept, self._services, self._get = kept, services, get
        self._tell, self._anchors = tell, anchors
        self._silent: dict[str, tuple[int, Unavailable]] = {}
        """By question, or by vendor if it cannot be reached at all: since when, and why."""

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """Current endorsements for this evidence. Raises Unavailable; Malformed and Refused for unreadable evidence."""
        found: dict[str, bytes] = {}
        for want, piece in self.pieces(evidence, now):
            found |= want.collateral(piece.by_name)
        return Collateral(parts=tuple(Part(name=name, data=data) for name, data in found.items()))

    def pieces(self, evidence: Evidence, now: int) -> tuple[tuple[Want, Piece], ...]:
        """The answers that this evidence needs, each with its question. Raises as ``collateral``."""
        failure: Unavailable | None = None
        for needed in wants(evidence):
            try:
                return tuple((want, self._piece(want, now)) for want in needed)
            except Unavailable as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return ()

    def _piece(self, want: Want, now: int) -> Piece:
        kept = self._kept.read(want.asked)
        dates = None if kept is None else self._dates(want, kept, now)
        if kept is not None and dates is not None and 0 <= now - kept.fetched_at < want.refresh:
            return kept
        try:
            return self._ask(want, now, dates)
        except Unavailable as error:
            if kept is None or dates is None:
                raise
            self._tell(error)
            return kept

    def _dates(self, want: Want, piece: Piece, now: int) -> tuple[int, ...] | None:
        """Dates of a kept answer that is still good; None for one that is out of its window, or was written by others."""
        try:
            return want.check(piece.by_name, now, self._anchors)
        except (Malformed, Refused):
            return None

    def _ask(self, want: Want, now: int, kept: tuple[int, ...] | None) -> Piece:
        vendor = want.asked.partition("/")[0]
        self._silent = {key: entry for key, entry in self._silent.items() if 0 <= now - entry[0] < QUIET_SECONDS}
        for key in (vendor, want.asked):
            if key in self._silent:
                raise self._silent[key][1]
        try:
            piece = self._answer(want, now, kept)
        except Unavailable as error:
            self._silent[vendor if error.code in _NOBODY_THERE else want.asked] = (now, error)
            raise
        try:
            self._kept.write(piece)
        except Unavailable as error:
            self._tell(error)  # a full disk is no reason to do without what is in hand
        return piece

    def _answer(self, want: Want, now: int, kept: tuple[int, ...] | None) -> Piece:
        """A genuine answer that is not older than what is kept. Raises Unavailable for any other."""
        try:
            parts = want.fetch(self._get, self._services)
            dates = want.check(parts, now, self._anchors)
        except (Malformed, Refused) as error:
            raise Unavailable(
                "collateral.not-genuine",
                f"{want.asked}: expected the vendor's own words of today, got others: {error.message} [{error.code}]",
                hint="the service, or the owner's cache of it, is wrong or stale; it is asked again later",
            ) from None
        if kept is not None and any(new < old for new, old in zip(dates, kept, strict=True)):
            raise Unavailable(
                "collateral.older",
                f"{want.asked}: expected an answer at least as new as the kept one, got an older one",
                hint="a cache that lags behind; it is asked again later",
            )
        return Piece(asked=want.asked, fetched_at=now, parts=_parts(parts))


def _parts(values: Mapping[str, bytes]) -> tuple[Part, ...]:
    try:
        return tuple(Part(name=name, data=data) for name, data in values.items())
    except Malformed:
        raise Unavailable(
            "collateral.not-genuine", "expected parts of a size that can be kept, got larger ones"
        ) from None
