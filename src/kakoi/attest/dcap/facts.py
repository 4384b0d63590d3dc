"""Facts that SGX enclaves and TDX guests share: the platform's configuration, and how the quote was judged."""

from __future__ import annotations

from kakoi.attest.dcap.verify import VerifiedQuote
from kakoi.attest.report import Fact


def platform(quote: VerifiedQuote) -> tuple[Fact, ...]:
    """Configuration flags that Intel certifies, and whether both verifiers judged the quote."""
    pck = quote.report.pck
    return (
        Fact(name="sgx-type", value=pck.sgx_type),
        Fact(name="dynamic-platform", value=pck.dynamic_platform),
        Fact(name="cached-keys", value=pck.cached_keys),
        Fact(name="smt", value=pck.smt_enabled),
        Fact(name="second-opinion", value=quote.second_opinion),
    )
