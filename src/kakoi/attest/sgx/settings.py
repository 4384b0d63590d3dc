"""Facts about an SGX enclave that a policy has to judge, and values to start from (docs/formats/evidence-dcap.md)."""

from __future__ import annotations

from typing import Final

from kakoi.attest.dcap import facts
from kakoi.attest.dcap.parse import SgxReport
from kakoi.attest.policy import Setting, Unchecked
from kakoi.attest.report import Fact, fact

# SECS.ATTRIBUTES.FLAGS (Intel SDM vol. 3D §37.7.1)
_MODE64: Final = 0x04
_PROVISION_KEY: Final = 0x10
_EINITTOKEN_KEY: Final = 0x20
_KSS: Final = 0x80
_AEX_NOTIFY: Final = 0x400
_ON: Final = ("no", "yes")
_SIGNED: Final = Unchecked(reason="mrenclave alone says which code runs; its signer chose this")
_FEATURES: Final = Unchecked(reason="processor features that the enclave's code may use; they weaken nothing")

RECOMMENDED: Final = (
    Setting(name="isv-prod-id", accepted=_SIGNED),
    Setting(name="isv-ext-prod-id", accepted=_SIGNED),
    Setting(name="isv-family-id", accepted=_SIGNED),
    Setting(name="config-id", accepted=("none",)),  # chosen by the host at launch, so it must not steer the code
    Setting(name="config-svn", accepted=("0",)),
    Setting(name="misc-select", accepted=("00000000", "01000000")),  # bit 0: page faults are told to the enclave
    Setting(name="xfrm", accepted=_FEATURES),
    Setting(name="cet", accepted=_FEATURES),
    Setting(name="mode64", accepted=("yes",)),
    Setting(name="provision-key", accepted=("no",)),
    Setting(name="einittoken-key", accepted=("no",)),
    Setting(name="key-separation", accepted=_ON),
    Setting(name="aex-notify", accepted=_ON),
    *facts.RECOMMENDED,
)
"""For policies that judge ``mrenclave`` by value. One entry for each fact."""
AUTHOR_SETTINGS: Final = frozenset(setting.name for setting in RECOMMENDED) - facts.NAMES


def _flag(flags: int, bit: int) -> str:
    return _ON[bool(flags & bit)]


def settings(body: SgxReport) -> tuple[Fact, ...]:
    """The facts of the enclave itself."""
    flags = body.flags
    values = {
        "isv-prod-id": str(body.isv_prod_id),
        "isv-ext-prod-id": body.isv_ext_prod_id.hex(),
        "isv-family-id": body.isv_family_id.hex(),
        "config-id": body.config_id.hex() if any(body.config_id) else "none",
        "config-svn": str(body.config_svn),
        "misc-select": body.misc_select.hex(),
        "xfrm": f"{body.xfrm:#x}",
        "cet": f"{body.cet_attributes:#x}",
        "mode64": _flag(flags, _MODE64),
        "provision-key": _flag(flags, _PROVISION_KEY),
        "einittoken-key": _flag(flags, _EINITTOKEN_KEY),
        "key-separation": _flag(flags, _KSS),
        "aex-notify": _flag(flags, _AEX_NOTIFY),
    }
    return tuple(fact(name, value) for name, value in values.items())
