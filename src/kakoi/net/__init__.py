"""The one small client of the hub: standard library only, because the enclave's trusted base contains it."""
