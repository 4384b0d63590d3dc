"""``kakoi contract preview``: of a contract at the hub, and of a draft's file that nobody else has seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from kakoi.contract.model import Code, Contract, DatasetManifest
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.enclave import machine
from kakoi.testing.world import TestParty, World, column
from kakoi.wire.preview import Preview
from support.command_line import Run
from support.hub_setting import Setting, draft_text, log_key, party_of, platforms, write_draft

pytestmark = pytest.mark.usefixtures("impatient")
STRICT: Final = "rules = { minimum_cell = 25, minimum_contributors = 25 }"


class Declared(World):
    """Codes and limits, so that invented people fall into few groups."""

    def manifest(self, owner: TestParty) -> Envelope:
        record = DatasetManifest.decode(super().manifest(owner).payload)
        sex = replace(column("sex", "string"), codes=tuple(Code(value=c, label="") for c in "FMX"), missing=())
        age = replace(column("age"), minimum="0", maximum="100", missing=())
        return seal(replace(record, columns=(age, sex, column("days"))), owner.signing)


@pytest.fixture
def declared(hub: Setting) -> Setting:
    return replace(hub, world=Declared())


def preview(run: Run, hub: Setting, party: tuple[Path, Path], what: object, *more: object) -> tuple[int, str, str]:
    allowed = [argument for layer in machine.missing() for argument in ("--accept-weakness", layer)]
    ran = run("contract", "preview", what, *party_of(party), "--hub", hub.url, "--people", 30, *allowed, *more)
    return ran.code, ran.out, ran.err if ran.code == 0 else ran.error


def rules_by_owner(out: str) -> str:
    return out.split("rules that bite, by owner", 1)[1].split("counts", 1)[0]


def test_a_draft_that_is_at_no_hub_is_rehearsed_and_says_whose_rules_bite(
    run: Run, declared: Setting, party: tuple[Path, Path], tmp_path: Path
) -> None:
    text = draft_text().replace("rules = { minimum_cell = 5 }", STRICT)
    file = write_draft(declared, party, text, tmp_path / "contract.toml")
    code, out, err = preview(run, declared, party, file)
    assert code == 0, err
    assert "INVENTED DATA" in out
    assert "too few rows or people behind a number (with 30 people at each owner)" in rules_by_owner(out)
    assert "North" in rules_by_owner(out)
    assert "minimum-cell-and-contributors" not in out
    assert declared.client.feed(kinds=(Contract.KIND,)).items == (), "nobody else got to see it"

    file.write_text(file.read_text().replace(STRICT, "rules = { minimum_cell = 1, minimum_contributors = 1 }"))
    code, out, err = preview(run, declared, party, file)
    assert code == 0, err
    assert "none" in rules_by_owner(out)


def test_the_draft_and_the_contract_made_of_it_give_the_same(
    run: Run, declared: Setting, party: tuple[Path, Path], tmp_path: Path
) -> None:
    file = write_draft(declared, party, draft_text(), tmp_path / "contract.toml")
    code, out, err = preview(run, declared, party, file, "--json")
    assert code == 0, err
    before = Preview.decode(out.strip().encode())
    keys = (*party_of(party), "--hub", declared.url)
    made = run("contract", "draft", file, *keys, "--platforms", platforms(tmp_path), "--log", log_key(tmp_path))
    assert made.code == 0, made.err
    code, out, err = preview(run, declared, party, made.out.strip(), "--json")
    assert code == 0, err
    assert Preview.decode(out.strip().encode()).analyses == before.analyses


def test_a_preview_of_a_draft_is_not_stored(
    run: Run, declared: Setting, party: tuple[Path, Path], tmp_path: Path
) -> None:
    file = write_draft(declared, party, draft_text(), tmp_path / "contract.toml")
    assert preview(run, declared, party, file, "--store")[::2] == (2, "preview.store-draft")
    assert declared.client.feed(kinds=(Preview.KIND,)).items == ()


@pytest.mark.parametrize(
    ("old", "new", "code", "error"),
    [
        ("days = 30", "days = ", 3, "draft.toml"),
        ("ANALYSIS", "2" * 64, 2, "draft.unknown-analysis"),
        ("MANIFEST", "3" * 64, 2, "draft.manifest"),
        ("minimum_cell = 5", "minimum_cell = 0", 3, "record.field"),
    ],
)
def test_a_draft_that_says_nonsense_is_refused_as_drafting_it_would_be(
    run: Run, declared: Setting, party: tuple[Path, Path], tmp_path: Path, old: str, new: str, code: int, error: str
) -> None:
    assert old in draft_text()
    file = write_draft(declared, party, draft_text().replace(old, new), tmp_path / "contract.toml")
    assert preview(run, declared, party, file)[::2] == (code, error)


def test_a_draft_that_is_not_there(run: Run, hub: Setting, party: tuple[Path, Path], tmp_path: Path) -> None:
    assert preview(run, hub, party, tmp_path / "none.toml")[::2] == (2, "file.missing")
    assert preview(run, hub, party, "none")[::2] == (3, "encoding.id")
