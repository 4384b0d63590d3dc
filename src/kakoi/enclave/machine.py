"""What this machine has and lacks of all that the enclave can use to protect itself: the sandbox's walls and the keeper's memory."""

from __future__ import annotations

from kakoi.enclave.keeper import hardening
from kakoi.enclave.sandbox import layers as walls
from kakoi.enclave.sandbox.layers import Layer


def layers() -> tuple[Layer, ...]:
    """Every layer, tried here: first the sandbox's, then the keeper's. Changes nothing."""
    lacking = hardening.missing()
    keeper = [
        Layer(name=name, missing="this kernel or its settings do not offer it" if name in lacking else "", worth=worth)
        for name, worth in hardening.WORTH.items()
    ]
    return (*walls.layers(), *keeper)


def missing() -> tuple[str, ...]:
    """Names of what this machine lacks, sorted: what a contract must accept by name for it to work here."""
    return tuple(sorted({*walls.missing(), *hardening.missing()}))
