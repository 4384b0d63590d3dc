"""The pinned root of Intel's provisioning certification service.

SHA-256 of the SubjectPublicKeyInfo of "Intel SGX Root CA" (valid 2018-05-21 to 2049-12-31; Intel,
``Intel_SGX_Provisioning_Certification_RootCA.cer``). Only the key is pinned: its certificate comes with the collateral.
"""

from __future__ import annotations

from typing import Final

INTEL: Final = frozenset({"a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"})
