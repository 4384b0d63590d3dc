"""``kakoi collateral``: fetch vendors' endorsements, carry them in signed bundles; and where a broker gets its own."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, get_args

import typer

from kakoi.attest.report import PlatformKind, TokenService
from kakoi.broker.collateral import (
    FileCollateral,
    KeptCollateral,
    KeptPieces,
    Source,
    SplitCollateral,
    WithTokenKeys,
    services,
)
from kakoi.broker.collateral_bundle import MAX_BYTES, import_bundle, make_bundle
from kakoi.broker.collateral_http import HttpGet
from kakoi.cli.contract import Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, err, errors_as_exit_codes, open_party, out
from kakoi.contract.sign import open_card
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Misuse
from kakoi.party.files import read_limited, write_private
from kakoi.sdk.evidence_files import read_evidence

app = typer.Typer(no_args_is_help=True, help=t("help.collateral-app"))
_LIMIT: Final = 8 * 1024 * 1024
_CARD_LIMIT: Final = 1024 * 1024
CacheOption = Annotated[Path | None, typer.Option("--collateral-cache", help=t("help.collateral-cache"))]
FromOption = Annotated[str, typer.Option("--collateral-from", help=t("help.collateral-from"))]
CaOption = Annotated[Path | None, typer.Option("--collateral-ca", help=t("help.collateral-ca"))]
TokenKeysOption = Annotated[list[str] | None, typer.Option("--token-keys", help=t("help.token-keys"))]
Cache = Annotated[Path, typer.Option("--collateral-cache", help=t("help.collateral-cache"))]


def source(file: Path | None, cache: Path | None, ask: str, ca: Path | None, token_keys: Sequence[str] = ()) -> Source:
    """Where a broker gets endorsements: a file, or what is kept in a directory and renewed from the services named.

    With both, the file serves the software platform. ``token_keys``: ``SERVICE=FILE`` entries, key sets of attestation
    services. Raises Misuse for a combination that means nothing.
    """
    endorsements = _endorsements(file, cache, ask, ca)
    return _with_token_keys(endorsements, token_keys) if token_keys else endorsements


def _endorsements(file: Path | None, cache: Path | None, ask: str, ca: Path | None) -> Source:
    if cache is None:
        if file is None or ask or ca is not None:
            raise Misuse(
                "collateral.source-missing",
                "expected a file with endorsements, or a directory to keep them in, got neither",
                hint="kakoi broker serve --collateral-cache DIR --collateral-from intel,amd,aws",
            )
        return FileCollateral(file)
    hardware = kept_source(cache, ask, ca)
    return hardware if file is None else SplitCollateral(software=FileCollateral(file), hardware=hardware)


def _with_token_keys(inner: Source, entries: Sequence[str]) -> Source:
    files: dict[str, Path] = {}
    for entry in entries:
        name, given, path = entry.partition("=")
        if name not in get_args(TokenService) or not given or not path or name in files:
            raise Misuse(
                "collateral.token-keys",
                f"expected {'=FILE, '.join(get_args(TokenService))}=FILE, each at most once, got another",
                hint="the key set that the service publishes, as it stands (docs/collateral.md)",
            )
        files[name] = Path(path)
    return WithTokenKeys(inner, files)


def kept_source(cache: Path, ask: str, ca: Path | None) -> KeptCollateral:
    """Kept endorsements, renewed from the services that ``ask`` names. Raises Misuse."""
    return KeptCollateral(KeptPieces(cache), services=services(ask), get=HttpGet(tls=_tls(ca)), tell=_tell)


def _tls(ca: Path | None) -> ssl.SSLContext | None:
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ValueError):
        raise Misuse(
            "collateral.ca", f"expected PEM certificates in {ca}, got none", hint="the CA of the owner's own cache"
        ) from None


def _tell(error: KakoiError) -> None:
    err.print(t("collateral.kept", message=error.message, code=error.code))


@app.command("bundle", help=t("help.collateral-bundle"))
def bundle(
    party: Party,
    evidence: Annotated[list[Path], typer.Option("--for", help=t("help.collateral-for"))],
    out_file: Annotated[Path, typer.Option("--out", help=t("help.out"))],
    cache: Cache,
    ask: FromOption = "",
    ca: CaOption = None,
    kind: Annotated[str | None, typer.Option("--kind", help=t("help.evidence-kind"))] = None,
    key_file: KeyFile = None,
) -> None:
    """Fetch what pieces of evidence need, and sign it."""
    with errors_as_exit_codes():
        now, kept = SystemClock().now(), kept_source(cache, ask, ca)
        pieces = []
        for path in evidence:
            found, _ = read_evidence(read_limited(path, limit=_LIMIT), _platform(kind))
            pieces += [piece for _, piece in kept.pieces(found, now)]
        if not pieces:
            raise Misuse(
                "collateral.nothing",
                "expected evidence of a kind that has endorsements to fetch, got none",
                hint="the software platform writes its own: kakoi platform collateral",
            )
        envelope = make_bundle(open_party(party, key_file), pieces, now)
        write_private(out_file, envelope.encode(), mode=0o644)
        for asked in sorted({piece.asked for piece in pieces}):
            out.print(asked, soft_wrap=True)


@app.command("import", help=t("help.collateral-import"))
def import_(
    file: Annotated[Path, typer.Argument(help=t("help.collateral-file"))],
    signed_by: Annotated[Path, typer.Option("--signed-by", help=t("help.collateral-signed-by"))],
    cache: Cache,
) -> None:
    """Check a bundle and keep what is newer than what is here."""
    with errors_as_exit_codes():
        card = open_card(Envelope.decode(read_limited(signed_by, limit=_CARD_LIMIT)))
        data = read_limited(file, limit=MAX_BYTES)
        taken, left = import_bundle(data, card, KeptPieces(cache), now=SystemClock().now())
        err.print(t("collateral.imported", taken=len(taken), left=len(left), name=card.record.name))
        for asked in taken:
            out.print(asked, soft_wrap=True)


def _platform(kind: str | None) -> PlatformKind | None:
    for known in get_args(PlatformKind):
        if kind == known:
            found: PlatformKind = known
            return found
    if kind is None:
        return None
    raise Misuse("attest.kind", f"expected one of {', '.join(get_args(PlatformKind))} as --kind, got another")
