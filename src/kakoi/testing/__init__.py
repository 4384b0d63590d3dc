"""Fakes and fault backends. Shipped for tests, never in an image."""
