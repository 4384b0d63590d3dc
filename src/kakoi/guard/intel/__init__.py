"""Shared threat intelligence: indicators of others that block, and sightings of our own refusals, in STIX 2.1 over TAXII 2.1."""
