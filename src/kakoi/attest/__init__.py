"""Judging evidence: parse, verify, appraise, one folder per kind of hardware. Pure; owner's trusted base."""
