"""Delivery, storage and log server. Trusted for availability only."""
