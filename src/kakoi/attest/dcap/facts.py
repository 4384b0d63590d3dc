"""Facts that SGX enclaves and TDX guests share: the platform's configuration, and how the quote was judged."""

from __future__ import annotations

from typing import Final

from kakoi.attest.dcap.verify import VerifiedQuote
from kakoi.attest.policy import Setting
from kakoi.attest.report import Fact, fact

_ANY: Final = ("true", "false", "undefined")

RECOMMENDED: Final = (
    Setting(name="sgx-type", accepted=("standard", "scalable", "scalable-with-integrity")),
    Setting(name="dynamic-platform", accepted=_ANY),  # true: packages can be added, as on every server
    Setting(name="cached-keys", accepted=_ANY),  # true: the platform's keys are kept by Intel's registration service
    Setting(name="smt", accepted=_ANY),  # true: hyper-threads; what that means for a TCB level is in its status
    Setting(name="second-opinion", accepted=("agrees",)),
)
NAMES: Final = frozenset(setting.name for setting in RECOMMENDED)


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
