"""Intel DCAP quotes, of SGX enclaves and TDX guests: parse, verify with two verifiers that must agree."""
