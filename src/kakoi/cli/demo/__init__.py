"""``kakoi demo``: three hospitals, one real result, verified, and six attacks that are refused."""
