"""The sealed data set format: seal, open, read. Pure; streams are arguments."""
