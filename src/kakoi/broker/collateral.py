"""Where an owner's broker gets vendors' endorsements. Fetching and judging are different things: nothing is judged here."""

from __future__ import annotations

from pathlib import Path

from kakoi.attest.report import Collateral, Evidence
from kakoi.party.files import read_limited


class FileCollateral:
    """Endorsements from a file that somebody put there; read anew for each session, so that it can be replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """The file's endorsements, whatever the evidence. Staleness is judged in appraisal, by the contract's policy."""
        return Collateral.decode(read_limited(self._path, limit=Collateral.MAX_BYTES))
