"""TCG event logs: parse, and replay to PCRs or RTMRs."""
