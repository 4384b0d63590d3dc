"""Tokens of attestation services: Azure MAA, Google Confidential Space, Intel Trust Authority."""
