"""Messages and the conversation of one run, as state machines without I/O. Pure."""
