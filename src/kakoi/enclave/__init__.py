"""Keeper, sandbox, engines, gate: what runs inside the TEE."""
