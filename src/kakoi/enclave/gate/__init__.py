"""The gate: what an engine answered, held against what was declared and against the owners' rules. Runs in the keeper."""
