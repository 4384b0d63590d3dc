"""Watching: one signed stream of events for each party, where it goes, what is read from it, and how well a party stands."""
