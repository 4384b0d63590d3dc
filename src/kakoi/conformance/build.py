"""The whole corpus: minted vectors, which need nothing but this package, and recorded ones, if a folder is given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, get_args

from kakoi.attest.dcap.parse import BodyKind
from kakoi.attest.snp.parse import Product, SigningKey
from kakoi.conformance import (
    appraisal,
    azure,
    azure_minted,
    dcap,
    dcap_minted,
    dcap_platform,
    devices,
    nitro,
    snp,
    snp_minted,
    tokens,
)
from kakoi.conformance.base import Base
from kakoi.conformance.corpus import Group, Vector
from kakoi.conformance.recorded import Shelf, load, vmpl_group
from kakoi.conformance.trial import Kind

_BODIES: Final[tuple[BodyKind, ...]] = get_args(BodyKind)
_CHIPS: Final[tuple[tuple[Product, SigningKey, int], ...]] = (
    ("Milan", "VCEK", 2), ("Milan", "VCEK", 5), ("Milan", "VLEK", 3), ("Genoa", "VCEK", 5), ("Genoa", "VLEK", 4),
    ("Turin", "VCEK", 5), ("Turin", "VLEK", 5),
)  # fmt: skip


def _once(groups: Sequence[Group], base: Base, tried: set[tuple[str, bytes]]) -> list[Group]:
    """Without byte twins of pieces that another vector of this kind has had already, byte for byte."""
    pieces = {"quote": base.trial.evidence.statement, **{p.name: p.data for p in base.trial.collateral.parts}}
    seen = {name for name, data in pieces.items() if (f"{base.kind}/{name}", data) in tried}
    tried |= {(f"{base.kind}/{name}", data) for name, data in pieces.items()}
    ways = ("flip", "truncate", "extend", "value", "field", "length")
    return [g for g in groups if not (g.name.split(".")[0] in seen and g.name.rpartition(".")[2] in ways)]


class Builder:
    """Makes vectors of the wanted kinds."""

    def __init__(self, kinds: Collection[Kind], *, every_bit: bool) -> None:
        self._kinds = kinds
        self._every_bit = every_bit
        self._tried: set[tuple[str, bytes]] = set()

    def _vector(self, base: Base, others: Sequence[Base], more: Sequence[Group], *, recorded: bool) -> Vector:
        every = self._every_bit
        if base.kind in ("sgx", "tdx"):
            common = dcap.groups(base, others, every_bit=every)
        elif base.kind == "snp":
            common = [*snp.groups(base, others, every_bit=every), *vmpl_group(base)]
        elif base.kind in ("azure-snp", "azure-tdx"):
            common = azure.groups(base, others, every_bit=every)
        elif base.kind == "nitro":
            common = nitro.byte_groups(base, others, every_bit=every)
        else:
            common = tokens.byte_groups(base, every_bit=every)
        groups = [base.good(), *_once(common, base, self._tried), *more, *appraisal.groups(base)]
        return Vector(name=base.name, kind=base.kind, recorded=recorded, groups=groups)

    def minted(self) -> Iterator[Vector]:
        """Vectors under test roots, made one after another."""
        yield from self._minted_dcap()
        yield from self._minted_snp()
        azures: tuple[Kind, ...] = ("azure-snp", "azure-tdx")
        for kind in azures:
            if kind in self._kinds:
                other = azure_minted.good(kind)
                yield self._vector(
                    azure_minted.good(kind), [other], azure_minted.groups(kind, log=False), recorded=False
                )
        if "azure-snp" in self._kinds:
            made = azure_minted.good("azure-snp", log=True)
            yield self._vector(made, [], azure_minted.groups("azure-snp", log=True), recorded=False)
        if "nitro" in self._kinds:
            others = [nitro.good("another AWS", which=3)]
            yield self._vector(nitro.good(), others, nitro.minted_groups(), recorded=False)
            yield self._vector(nitro.good("minted-nitro-without-lists", lists=False), others, [], recorded=False)
            yield self._vector(nitro.good("minted-nitrotpm", tpm=True), others, [], recorded=False)
        if "nvidia" in self._kinds:
            yield devices.minted(every_bit=self._every_bit)
        for service in tokens.SERVICES:
            if service in self._kinds:
                yield self._vector(tokens.good(service), [], tokens.minted_groups(service), recorded=False)

    def _minted_dcap(self) -> Iterator[Vector]:
        for body in _BODIES:
            if ("sgx" if body == "sgx" else "tdx") in self._kinds:
                others = [dcap_minted.good(body)]
                more = [*dcap_platform.groups(body), *dcap_platform.tolerances(body)]
                yield self._vector(dcap_minted.good(body), others, more, recorded=False)

    def _minted_snp(self) -> Iterator[Vector]:
        if "snp" not in self._kinds:
            return
        for product, key, version in _CHIPS:
            more = snp_minted.groups(product, key) if version in (3, 5) or key == "VLEK" else []
            others = [snp_minted.good("Genoa" if product == "Milan" else "Milan", key)]
            yield self._vector(snp_minted.good(product, key, version), others, more, recorded=False)

    def recorded(self, shelf: Shelf) -> Iterator[Vector]:
        """Vectors of real machines."""
        wanted = [base for base in shelf.good if base.kind in self._kinds]
        for base in wanted:
            yield self._vector(base, [b for b in wanted if b.kind == base.kind and b is not base], [], recorded=True)
        yield from self._devices(shelf)
        yield from (vector for vector in shelf.bad if vector.kind in self._kinds)

    def _devices(self, shelf: Shelf) -> Iterator[Vector]:
        every = self._every_bit
        for name, trial in shelf.devices.items() if "nvidia" in self._kinds else ():
            others = [other for key, other in shelf.devices.items() if key != name]
            yield devices.nvidia_vector(name, trial, others, recorded=True, every_bit=every)
        for name, trial in shelf.logs.items() if "ccel" in self._kinds else ():
            yield devices.log_vector(name, trial, every_bit=every)


def vectors(kinds: Collection[Kind], folder: Path | None, *, every_bit: bool = False) -> list[Vector]:
    """The corpus for these kinds, with the recorded evidence of ``folder``. Takes a few seconds: it mints."""
    builder = Builder(kinds, every_bit=every_bit)
    found = list(builder.minted())
    if folder is not None:
        found += builder.recorded(load(folder))
    return found
