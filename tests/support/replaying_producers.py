"""A test build's ``kakoi.enclave.keeper.producers``: hands out recorded evidence instead of asking hardware.

Copied over the real module in an image that a test builds. No program of ``src`` contains it, and no verifier of
``src`` accepts what it gives: the recorded evidence travels with a part that says for which session it is replayed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import kakoi
from kakoi.attest.report import Evidence, Part
from kakoi.enclave.keeper.session import Producer

NAMES: Final = ("tsm",)
REPLAY: Final = "replay.json"
"""Beside the image: the evidence to replay, read for each session."""
OVERRIDE: Final = "replayed-for"


class ReplayingProducer:
    """Recorded hardware."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def evidence(self, report_data: bytes) -> Evidence:
        """The recording, and the report data that it does not have."""
        recorded = Evidence.decode(self._file.read_bytes())
        return replace(recorded, parts=(*recorded.parts, Part(name=OVERRIDE, data=report_data)))


def producer(name: str, *, software: Path | None, measurement: bytes) -> Producer:
    """The only one."""
    return ReplayingProducer(Path(kakoi.__file__).parents[2] / REPLAY)
