"""A contract rehearsed before anybody signs: the enclave's own engine and gate on data invented from manifests alone."""
