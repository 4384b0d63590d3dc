"""What can be said about sealed code to whoever is asked to approve it, and what cannot, in plain words."""

from __future__ import annotations

from collections.abc import Mapping

from kakoi.cli.i18n import t
from kakoi.cli.ui import out, plain
from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.contract.model import Analysis, Contract, PartyCard
from kakoi.contract.sign import Signed, open_signed
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import PartyId, parse_id
from kakoi.net.bundle import ObjectSource

Cards = Mapping[PartyId, Signed[PartyCard]]


def describe_sealed(source: ObjectSource, contract: Contract, analysis: Analysis, cards: Cards) -> None:
    """Owner, digest, files, what it reads and may return, who vouches for it, and what nobody but them knows."""
    entry = next((item for item in contract.code if item.manifest == analysis.sealed_code), None)
    if entry is None:
        raise Refused("contract.objects", "expected exactly the sealed code that the analyses name")
    owner = cards[entry.owner]
    manifest = open_signed(CodeManifest, source.get_object(parse_id(entry.manifest)), owner).record
    out.print(f"  [bold]{t('contract.sealed', name=plain(owner.record.name))}[/]")
    size = sum(file.size for file in manifest.files)
    out.print(t("contract.sealed-known", id=entry.manifest, files=len(manifest.files), size=size))
    for use in analysis.reads:
        out.print(t("contract.sealed-reads", table=use.table, columns=", ".join(use.columns)))
    if manifest.description:
        out.print(t("contract.sealed-says", description=plain(manifest.description)))
    for reviewer in entry.reviewers:
        _describe_review(source, entry.manifest, cards[reviewer])
    if not entry.reviewers:
        out.print(t("contract.sealed-unread"))
    out.print(t("contract.sealed-unknown"))


def _describe_review(source: ObjectSource, code: str, reviewer: Signed[PartyCard]) -> None:
    for item in source.feed(kinds=(CodeReview.KIND,), refs={"code": code, "reviewer": reviewer.id}).items:
        try:
            found = open_signed(CodeReview, source.get_object(item.id), reviewer).record
        except (Malformed, Refused):
            continue
        out.print(t("contract.sealed-review", name=plain(reviewer.record.name), statement=plain(found.statement)))
        return
    out.print(t("contract.sealed-no-review", name=plain(reviewer.record.name)))
