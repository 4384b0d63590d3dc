"""Asking the hardware for evidence, one module per platform. Inside the TEE."""
