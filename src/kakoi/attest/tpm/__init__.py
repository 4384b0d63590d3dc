"""TPM 2.0 quotes: parse and verify. Used by `azure` and `vtpm`; not a platform of its own."""
