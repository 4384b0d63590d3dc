"""A real scikit-learn model, sealed, scored on two hospitals' patients through hub, brokers, enclave and gate, by the example's own commands;
then everything that the others have is searched for the model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from integration.test_readme import CELLS, FENCE, left_running, run_all
from kakoi.attest.software.admit import with_software
from kakoi.core.errors import Refused
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock
from kakoi.sdk.sealed_code import open_shared
from kakoi.sdk.verify import verify_result
from kakoi.wire.result import ResultFile
from support.tree import ROOT

PAGE: Final = (ROOT / "examples/sealed-model/README.md").read_text("utf-8")
OWN: Final = ("vendor", "vendor-files", "read-me", "examples")
"""Directories of the vendor, of the reviewer, and the example itself. All others belong to those who may not know."""


@dataclass(frozen=True)
class Played:
    directory: Path
    out: str
    err: str

    def others_files(self) -> Iterator[Path]:
        """Everything that hub, operator, hospitals and analyst have."""
        for path in self.directory.rglob("*"):
            if path.is_file() and path.relative_to(self.directory).parts[0] not in OWN:
                yield path

    @property
    def model(self) -> bytes:
        return (self.directory / "vendor-files/model.pickle").read_bytes()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    directory = tmp_path_factory.mktemp("sealed-model")
    script = "\n".join(body for kind, body in FENCE.findall(PAGE) if kind == "sh")
    done = run_all(script, directory, "en", seconds=500)
    assert done.returncode == 0, done.stderr[-3000:]
    deadline = time.monotonic() + 60
    while left_running(directory) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left_running(directory) == []
    return Played(directory, done.stdout, done.stderr)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("sealed-model")]


def test_the_numbers_are_those_of_the_model_run_in_the_open(played: Played) -> None:
    shown = [line for kind, body in FENCE.findall(PAGE) if kind == "text" for line in CELLS.findall(body)]
    assert len(shown) == 3
    for line in shown:
        assert line in played.out
    assert "Traceback" not in played.err


def test_nobody_else_has_a_piece_of_model_or_source(played: Played) -> None:
    """No 24 bytes in a row of the model, none of the source's own lines: not in files, databases, logs, passports, nor on a screen."""
    source = (played.directory / "vendor-files/score.py").read_bytes()
    needles = [line.strip() for line in source.splitlines() if len(line.strip()) >= 24]
    needles += [played.model[at : at + 24] for at in range(0, len(played.model) - 24, 997)]
    needles = [needle for needle in needles if needle.strip(bytes(range(3)))]
    assert len(needles) > 60
    searched = 0
    for path in played.others_files():
        data = path.read_bytes()
        found = [needle for needle in needles if needle in data]
        assert not found, (path, found[:3])
        searched += len(data)
    assert searched > 500_000


def test_the_search_would_have_found_it(played: Played) -> None:
    source = (played.directory / "vendor-files/score.py").read_bytes()
    assert (played.directory / "read-me/analysis.py").read_bytes() == source, "the reviewer read the very source"
    assert (played.directory / "read-me/model.pickle").read_bytes() == played.model
    assert b"SECRET_CUTS" in source


def test_what_people_are_told(played: Played) -> None:
    """Before they sign, and by the passport afterwards."""
    for words in (
        "Its code is SEALED: Risk Score Ltd lets nobody read it",
        "Clinic for Algorithms has read it and signed: Scores every visit once",
        "What is not known: what it computes.",
        "What the sealed code",
        "refused, exit code 4",
    ):
        assert words in " ".join(played.out.split()), words
    assert "Risk Score Ltd refused" in " ".join(played.err.split())


def test_the_passport_holds_the_digest_and_the_review(played: Played) -> None:
    file = ResultFile.decode((played.directory / "risk.kakoi").read_bytes())
    verified = verify_result(file.encode(), verifiers=with_software)
    said = next(item for item in verified.not_proven if item.key == "verify.not-proven.sealed-code")
    assert said.parameters["reviewers"] == "Clinic for Algorithms"
    assert len(str(said.parameters["digest"])) == 64
    assert str(said.parameters["digest"]) in played.out


def test_a_share_opens_for_its_reviewer_only(played: Played) -> None:
    from kakoi.contract.code import CodeShare
    from kakoi.net.client import HubClient

    shared = CodeShare.decode((played.directory / "share.json").read_bytes())
    thief = PartyHome.load(played.directory / "north", Unlock(key_file=played.directory / "north.key"))
    with pytest.raises(Refused) as caught:
        open_shared(HubClient("http://127.0.0.1:9"), thief, shared)
    assert caught.value.code == "code.reviewer"


def test_the_vendor_has_no_patient(played: Played) -> None:
    """Nor has anybody but each hospital: rows are nowhere but in its own directory."""
    rows = {
        name: (played.directory / f"hospitals/{name}.csv").read_bytes().splitlines()[1:] for name in ("north", "south")
    }
    for path in played.directory.rglob("*"):
        if path.is_file() and path.relative_to(played.directory).parts[0] not in ("hospitals", "examples"):
            data = path.read_bytes()
            assert not [row for part in rows.values() for row in part if row in data], path
