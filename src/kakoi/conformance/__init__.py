"""The negative corpus: bad twins of good evidence, and what a verifier says about each. Judges nothing itself."""
