"""``kakoi redteam``: the attacks of THREAT_MODEL.md that can be tried from outside, against a deployment that runs."""
