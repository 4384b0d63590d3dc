"""The keeper: holds session and data keys, talks to the hub, never touches a row. Standard library and ``cryptography`` only."""
