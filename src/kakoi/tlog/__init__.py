"""Transparency log: Merkle tree, checkpoints, proofs. Pure."""
