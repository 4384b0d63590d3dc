"""The settings that a policy for SEV-SNP has to name, with the values recommended for a first contract.

A starting point to be read and changed by the owners, never a default: a policy without them refuses everything.
"""

from __future__ import annotations

from typing import Final

from kakoi.attest.policy import Setting, Unchecked

_EITHER: Final = ("on", "off")
_PER_BULLETIN: Final = Unchecked(
    reason="no security bulletin demands a mitigation bit yet; name the vectors once one does"
)


def _setting(name: str, *accepted: str) -> Setting:
    return Setting(name=name, accepted=accepted)


RECOMMENDED: Final = (
    _setting("report-version", "3", "4", "5"),  # 2 shows neither CPUID nor the alias check
    _setting("vmpl", "0"),
    _setting("signing-key", "VCEK"),
    _setting("csp-id", "none"),
    _setting("chip-id", "shown"),
    _setting("mask-chip-key", "off"),
    _setting("author-key", *_EITHER),  # whose it is, the measurement author-key-digest says
    _setting("provisional-firmware", "no"),
    _setting("migration-agent", "none"),
    Setting(name="mitigations.launch", accepted=_PER_BULLETIN),
    Setting(name="mitigations.current", accepted=_PER_BULLETIN),
    _setting("revocation", "checked"),
    _setting("policy.smt", *_EITHER),
    _setting("policy.migrate-ma", "off"),
    _setting("policy.single-socket", *_EITHER),
    _setting("policy.cxl", "off"),
    _setting("policy.mem-aes-256-xts", *_EITHER),
    _setting("policy.rapl-disabled", *_EITHER),
    _setting("policy.ciphertext-hiding-dram", *_EITHER),
    _setting("policy.page-swap-disabled", *_EITHER),
    _setting("platform.smt", *_EITHER),
    _setting("platform.tsme", *_EITHER),
    _setting("platform.ecc", "on"),
    _setting("platform.rapl-disabled", *_EITHER),
    _setting("platform.ciphertext-hiding-dram", *_EITHER),
    _setting("platform.alias-check-complete", "on"),  # BadRAM, AMD-SB-3015
    _setting("platform.undocumented-6", *_EITHER),
    _setting("platform.tio", "off"),
)
