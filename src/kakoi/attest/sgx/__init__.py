"""SGX enclaves: claims, facts and policy over a verified DCAP quote."""
