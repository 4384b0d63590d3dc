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
from kakoi.broker.collateral_bundle import MAX_BYTES, check_bundle, import_bundle, make_bundle
from kakoi.broker.collateral_http import HttpGet
from kakoi.broker.collateral_hub import HubBundles
from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, at_hub, err, errors_as_exit_codes, open_party, out, show_made
from kakoi.contract.sign import open_card
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Misuse
from kakoi.net.client import HubClient
from kakoi.party.files import read_limited, write_private
from kakoi.sdk.evidence_files import read_evidence

app = typer.Typer(no_args_is_help=True, help=t("help.collateral-app"))
_LIMIT: Final = 8 * 1024 * 1024
_CARD_LIMIT: Final = 1024 * 1024
CacheOption = Annotated[Path | None, typer.Option("--collateral-cache", help=t("help.collateral-cache"))]
FromOption = Annotated[str, typer.Option("--collateral-from", help=t("help.collateral-from"))]
CaOption = Annotated[Path | None, typer.Option("--collateral-ca", help=t("help.collateral-ca"))]
BundlesOption = Annotated[
    list[Path] | None, typer.Option("--collateral-bundles-from", help=t("help.collateral-bundles-from"))
]
TokenKeysOption = Annotated[list[str] | None, typer.Option("--token-keys", help=t("help.token-keys"))]
Cache = Annotated[Path, typer.Option("--collateral-cache", help=t("help.collateral-cache"))]


def source(
    file: Path | None,
    cache: Path | None,
    ask: str,
    ca: Path | None,
    *,
    token_keys: Sequence[str] | None = None,
    bundles: Sequence[Path] | None = None,
    hub: HubClient | None = None,
) -> Source:
    """Where a broker gets endorsements: a file, or what is kept in a directory and renewed from the services named.

    With both, the file serves the software platform. ``token_keys``: ``SERVICE=FILE`` entries, key sets of attestation
    services. ``bundles``: cards of parties whose bundles at the hub are kept in the directory. Raises Misuse for a
    combination that means nothing.
    """
    endorsements = _endorsements(file, cache, ask, ca, bundles or (), hub)
    return _with_token_keys(endorsements, token_keys) if token_keys else endorsements


def _endorsements(
    file: Path | None, cache: Path | None, ask: str, ca: Path | None, bundles: Sequence[Path], hub: HubClient | None
) -> Source:
    if cache is None:
        if file is None or ask or ca is not None or bundles:
            raise Misuse(
                "collateral.source-missing",
                "expected a file with endorsements, or a directory to keep them in, got neither",
                hint="kakoi broker serve --collateral-cache DIR --collateral-from intel,amd,aws",
            )
        return FileCollateral(file)
    hardware: Source = kept_source(cache, ask, ca)
    if bundles and hub is not None:
        hardware = _hub_bundles(hardware, cache, hub, bundles)
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


def _hub_bundles(inner: Source, cache: Path, hub: HubClient, cards: Sequence[Path]) -> HubBundles:
    signers = [open_card(Envelope.decode(read_limited(path, limit=_CARD_LIMIT))) for path in cards]
    return HubBundles(inner, KeptPieces(cache), hub, signers, tell=_left)


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


def _left(error: KakoiError) -> None:
    err.print(t("collateral.bundle-left", message=error.message, code=error.code))


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


@app.command("publish", help=t("help.collateral-publish"))
def publish(
    file: Annotated[Path, typer.Argument(help=t("help.collateral-file"))],
    signed_by: Annotated[Path, typer.Option("--signed-by", help=t("help.collateral-signed-by"))],
    party: Party,
    hub: HubUrl,
    key_file: KeyFile = None,
) -> None:
    """Check a bundle as an owner would, and give it to the hub."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, _):
        card = open_card(Envelope.decode(read_limited(signed_by, limit=_CARD_LIMIT)))
        data = read_limited(file, limit=MAX_BYTES)
        check_bundle(data, card, now=SystemClock().now())
        client.put_object(card.envelope)
        envelope = Envelope.decode(data)
        client.put_object(envelope)
        show_made(envelope.payload_id, t("collateral.published", name=card.record.name))


@app.command("fetch", help=t("help.collateral-fetch"))
def fetch(
    hub: HubUrl,
    signed_by: Annotated[list[Path], typer.Option("--signed-by", help=t("help.collateral-signed-by"))],
    cache: Cache,
    party: Party,
    key_file: KeyFile = None,
) -> None:
    """Keep what the bundles of these parties at the hub hold, as far as it is newer than what is here."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, _):
        bundles = _hub_bundles(kept_source(cache, "", None), cache, client, signed_by)
        taken = dict.fromkeys(bundles.refresh(SystemClock().now()))
        err.print(t("collateral.fetched", taken=len(taken)))
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
