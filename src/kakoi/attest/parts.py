"""Named pieces of evidence and collateral, taken strictly: each name once, none that the kind does not know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kakoi.attest.report import CollateralDigest, Part
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed
from kakoi.core.ids import ObjectId


def named(
    parts: Sequence[Part], what: str, *, allowed: Collection[str], required: Collection[str] = ()
) -> dict[str, bytes]:
    """Name → bytes. Raises Malformed ``evidence.parts`` for a repeated, unknown or missing name.

    ``what`` says in messages whose parts they are, for instance ``SNP collateral``.
    """
    found = {part.name: part.data for part in parts}
    unknown = sorted(found.keys() - {*allowed, *required})
    missing = sorted(set(required) - found.keys())
    if len(found) != len(parts) or unknown or missing:
        problem = f"no {missing[0]}" if missing else f"{unknown[0]}" if unknown else "a repeated name"
        raise Malformed(
            "evidence.parts",
            f"{what}: expected the parts {', '.join(sorted({*allowed, *required})) or 'none'}, got {problem}",
            hint="the page of this kind under docs/formats lists its parts",
        )
    return found


def digests(used: Mapping[str, bytes]) -> tuple[CollateralDigest, ...]:
    """The SHA-256 of each piece used, for the verdict."""
    return tuple(
        CollateralDigest(name=name, digest=ObjectId(sha256(data).hex())) for name, data in sorted(used.items())
    )
