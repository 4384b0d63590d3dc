"""The versions. A file that was released never changes."""
