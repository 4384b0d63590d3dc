"""One Hypothesis profile for all: small, and without deadlines, because machines that run tests are slow and shared."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kakoi", deadline=None, max_examples=30)
settings.load_profile("kakoi")
