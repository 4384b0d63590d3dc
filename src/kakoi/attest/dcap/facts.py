"""Facts that SGX enclaves and TDX guests share: the platform's configuration, and how the quote was judged."""

from __future__ import annotations

from kakoi.attest.dcap.verify import VerifiedQuote
from kakoi.attest.report import Fact, fact


def platform(quote: VerifiedQuote) -> tuple[Fact, ...]:
    """Configuration flags that Intel certifies, and whether both verifiers judged the quote."""
    pck = quote.report.pck
    return (
        fact("sgx-type", pck.sgx_type),
        fact("dynamic-platform", pck.dynamic_platform),
        fact("cached-keys", pck.cached_keys),
        fact("smt", pck.smt_enabled),
        fact("second-opinion", quote.second_opinion),
    )
