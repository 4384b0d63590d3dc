"""A party's own directory: keys at rest, cards it knows. I/O; trusted by that party."""
