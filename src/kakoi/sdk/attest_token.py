"""One token of an attestation service judged by itself, outside any run: what ``kakoi attest verify --kind azure-maa`` shows.

The report is that of evidence (``sdk.attest_file``). Without a policy nothing says whose keys count, so that even the
question whether a token is genuine needs anchors from its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kakoi.attest.draft import draft
from kakoi.attest.policy import TokenPolicy
from kakoi.attest.report import (
    NOTE,
    AppraisalRefused,
    Collateral,
    Part,
    PlatformKind,
    TokenService,
    VerifiedEvidence,
    token_binding,
)
from kakoi.attest.tokens.verifier import judge_token, verify_token
from kakoi.core import encoding
from kakoi.core.errors import KakoiError, Misuse
from kakoi.core.ids import parse_id
from kakoi.core.records import from_value
from kakoi.sdk.attest_file import DRAFT_AGE, AttestReport, Trouble, report, unappraised
from kakoi.sdk.draft import policy_from_file, policy_value


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """A token as its service wrote it, and the service's key set, if it is needed."""

    service: TokenService
    token: bytes
    keys: bytes | None

    @property
    def collateral(self) -> Collateral:
        """The key set as the verifier takes it."""
        return Collateral(parts=() if self.keys is None else (Part(name="jwks", data=self.keys),))


def token_policy_from_file(path: Path, service: TokenService, beside: PlatformKind | None) -> TokenPolicy:
    """What a file demands of a token: a ``kakoi/token-policy/v1``, or a whole policy with one entry for this service.

    ``beside`` chooses among several entries. Raises Misuse ``attest.token-policy``, Malformed.
    """
    value = policy_value(path)
    if isinstance(value, dict) and value.get("kind") == TokenPolicy.KIND:
        entries: tuple[TokenPolicy, ...] = (from_value(TokenPolicy, encoding.loads(encoding.dumps(value)), path.name),)
    else:
        entries = policy_from_file(path).tokens
    found = [e for e in entries if e.service == service and beside in (None, e.accompanies)]
    if len(found) != 1:
        raise Misuse(
            "attest.token-policy",
            f"expected a policy that demands one token of {service}, got one that demands {len(found)}",
            hint="--beside KIND chooses among several; --draft-policy writes one from a token",
        )
    return found[0]


def verify_only(file: TokenFile, anchors: Sequence[str], *, now: int) -> VerifiedEvidence:
    """What the token's signature proves under these anchors. Raises Malformed, Refused; Misuse ``attest.anchor`` for none."""
    if not anchors:
        raise Misuse(
            "attest.anchor",
            "expected the SHA-256 of a key that may sign tokens, or a policy that names one, got neither",
            hint="--anchor HEX; a token is worth what its key is worth, and no key is built in",
        )
    keys = frozenset(parse_id(anchor) for anchor in anchors)
    return verify_token(file.token, file.service, file.collateral, anchors=keys, now=now)


def examine_token(
    file: TokenFile, policy: TokenPolicy | None, *, anchors: Sequence[str], report_data: bytes | None, now: int
) -> tuple[AttestReport, KakoiError | None]:
    """The report, and the error that it tells of, if it tells of one. ``report_data``: the session's, 64 bytes.

    Raises Misuse for a policy without report data, and for neither policy nor anchors.
    """
    if policy is not None and report_data is None:
        raise Misuse(
            "attest.report-data",
            "expected the report data of the session beside a policy, got none",
            hint="a token of another session is worth nothing: give --report-data, in hex",
        )
    try:
        if policy is None or report_data is None:
            verified = verify_only(file, anchors, now=now)
            return report("not-appraised", now, proved=unappraised(verified)), None
        bound = token_binding(file.service, report_data)
        verdict = judge_token(file.token, file.service, file.collateral, policy.claims, report_data=bound, now=now)
        return report("accepted", now, verdict=verdict), None
    except AppraisalRefused as error:
        return report("refused", now, verdict=error.verdict), error
    except Misuse:
        raise
    except KakoiError as error:
        told = Trouble(code=error.code, message=error.message[:NOTE], hint=error.hint[:NOTE])
        return report("not-genuine", now, trouble=told), error


def draft_token_policy(
    file: TokenFile, anchors: Sequence[str], beside: PlatformKind | None, *, now: int
) -> TokenPolicy:
    """A demand for exactly what this token says, beside evidence of ``beside``, or of the kind that the token speaks of."""
    verified = verify_only(file, anchors, now=now)
    claims = draft(verified, collateral_max_age=DRAFT_AGE)
    return TokenPolicy(accompanies=beside or verified.claims.platform, service=file.service, claims=claims)
