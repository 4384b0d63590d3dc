"""Security advisories of hardware vendors in CSAF, read offline: which ids a bulletin is known by, and which products it names as affected.

Source: Common Security Advisory Framework 2.0 (OASIS Standard, 18 November 2022): §3.2.1 document, §3.2.2 product tree, §3.2.3
vulnerabilities. Texts are not kept. A product that is only *under investigation* counts as affected until the vendor says otherwise. One that
cannot be read is an error, never a bulletin about nothing. A bulletin of the vendor is what the vendor says, with no signature looked at: whoever
imports it decides where it came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kakoi.core.errors import Malformed, Misuse

MAX_BYTES: Final = 16 * 1024 * 1024
LINES: Final = ("Naples", "Rome", "Milan", "Genoa", "Bergamo", "Siena", "Turin")
"""AMD's lines as bulletins name them. ``claims.product`` has those that SEV-SNP verifies."""
_SAME: Final = {"Bergamo": "Genoa", "Siena": "Genoa"}
"""Lines whose chips are endorsed as another (AMD VCEK specification: one product name for each family of chips)."""
_DEPTH: Final = 30
_VENDOR_ID: Final = re.compile(r"\b(INTEL-SA-\d{5}|AMD-SB-\d{4,5}(?:\.\d+)?)\b")
_CVE: Final = re.compile(r"CVE-\d{4}-\d{4,}\Z")
_AFFECTED: Final = ("first_affected", "known_affected", "last_affected", "under_investigation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulletin:
    """One bulletin."""

    id: str
    names: frozenset[str]
    """Every name it is known by: its own id, ids of the vendor, CVEs; in capitals."""
    released: str
    """Day of this version, YYYY-MM-DD."""
    publisher: str
    affected: tuple[str, ...]
    """Names of products that it calls affected."""

    @property
    def lines(self) -> frozenset[str]:
        """AMD's lines among the affected products, as evidence names them."""
        found = (line for line in LINES for name in self.affected if re.search(rf"\b{line}\b", name, re.IGNORECASE))
        return frozenset(_SAME.get(line, line) for line in found)

    @property
    def vendor_ids(self) -> frozenset[str]:
        """The names that the vendor's endorsements list."""
        return frozenset(name for name in self.names if _VENDOR_ID.fullmatch(name))


def decode(data: bytes) -> Bulletin:
    """A CSAF document. Raises Malformed (``bulletin.csaf``) for anything else, and for one that its vendor withdrew or drafts."""
    try:
        value = json.loads(data)
        document = value["document"]
        tracking = document["tracking"]
        if document["csaf_version"] not in ("2.0", "2.1") or tracking["status"] not in ("final", "interim"):
            raise ValueError
        products = dict(_products(value.get("product_tree", {})))
        weak = value.get("vulnerabilities", [])
        affected = {product for item in weak for product in _affected(item)}
        released = str(tracking["current_release_date"])[:10]
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", released):
            raise ValueError
        return Bulletin(
            id=str(tracking["id"])[:120],
            names=frozenset(_names(tracking, weak)),
            released=released,
            publisher=str(document["publisher"]["name"])[:120],
            affected=tuple(sorted(products[product] for product in affected)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Malformed(
            "bulletin.csaf",
            "expected a final advisory in CSAF 2.0 (JSON), got something else",
            hint="vendors publish them beside their bulletins; drafts say nothing yet",
        ) from None


def read(path: Path) -> Bulletin:
    """A bulletin from a file. Raises Misuse, Malformed."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        raise Misuse("file.missing", f"expected a bulletin in {path}, found none", hint="check the path") from None
    if len(data) > MAX_BYTES:
        raise Malformed("bulletin.size", f"expected a bulletin of at most {MAX_BYTES >> 20} MiB, got a larger one")
    return decode(data)


def _names(tracking: Any, weak: Any) -> Iterator[str]:
    own = [tracking["id"], *(tracking.get("aliases") or ())]
    others = [entry["text"] for item in weak for entry in item.get("ids") or ()]
    for text in (*own, *others):
        yield from _VENDOR_ID.findall(str(text).upper())
    yield str(tracking["id"]).upper()
    for item in weak:
        if "cve" in item:
            if not _CVE.match(item["cve"]):
                raise ValueError
            yield item["cve"]


def _affected(item: Any) -> Iterator[str]:
    status = item.get("product_status") or {}
    for name in _AFFECTED:
        yield from status.get(name) or ()


def _products(tree: Any) -> Iterator[tuple[str, str]]:
    """Names of products by their id. A branch's product carries the names of the branches above it, which say what line it is of."""
    for entry in tree.get("full_product_names") or ():
        yield entry["product_id"], entry["name"]
    for entry in tree.get("relationships") or ():
        product = entry["full_product_name"]
        yield product["product_id"], product["name"]
    for branch in tree.get("branches") or ():
        yield from _branch(branch, (), _DEPTH)


def _branch(branch: Any, above: tuple[str, ...], left: int) -> Iterator[tuple[str, str]]:
    if not left:
        raise ValueError
    path = (*above, str(branch["name"]))
    if "product" in branch:
        yield branch["product"]["product_id"], " / ".join((*path, str(branch["product"]["name"])))
    for inner in branch.get("branches") or ():
        yield from _branch(inner, path, left - 1)
