"""Errors, identifiers, encodings and cryptography: the ground of every trusted base. Pure: no I/O, no clock."""
