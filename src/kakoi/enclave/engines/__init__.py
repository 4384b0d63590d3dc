"""The engines: plaintext tables in, declared outputs out. No key, no network, no files; one job per process."""
