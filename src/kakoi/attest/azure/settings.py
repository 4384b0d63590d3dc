"""The settings that a policy for Azure confidential VMs has to name beside those of the hardware's kind.

A starting point to be read and changed by the owners, never a default: a policy without them refuses everything.
"""

from __future__ import annotations

from typing import Final

from kakoi.attest.policy import Setting, Unchecked

_PER_MACHINE: Final = Unchecked(reason="each virtual machine has its own; list them where machines are long-lived")
_NO_CONSOLE_RULE: Final = Unchecked(reason="the serial console of Azure is outside the guest; the boot chain decides")

RECOMMENDED: Final = (
    Setting(name="hcl.user-data", accepted=("zero", "report-data")),
    Setting(name="tpm.clock-safe", accepted=("yes", "no")),
    Setting(name="event-log", accepted=("none", "replayed")),
    Setting(name="vm.console-enabled", accepted=_NO_CONSOLE_RULE),
    Setting(name="vm.secure-boot", accepted=("true",)),
    Setting(name="vm.tpm-enabled", accepted=("true",)),
    Setting(name="vm.vmUniqueId", accepted=_PER_MACHINE),
)
"""Newer paravisors also show ``vm.tpm-persisted``, ``vm.root-cert-thumbprint`` and ``vm.filtered-vpci-devices-allowed``."""
