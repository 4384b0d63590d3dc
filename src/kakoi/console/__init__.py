"""The pages in which people of one party see what they sign. At the owner or analyst; trusted by that party only."""
