"""The sandbox: a fresh process per job in which untrusted code can compute, and nothing else."""
