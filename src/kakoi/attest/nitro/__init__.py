"""AWS Nitro attestation documents: enclaves and NitroTPM."""
