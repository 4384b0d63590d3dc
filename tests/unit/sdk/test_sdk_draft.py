"""Drafts that people write: what docs/formats/drafts.md shows is what is read, and nothing else is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from kakoi.contract.model import Analysis, Contract, DatasetManifest, Output, Parameter
from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import KakoiError, Malformed, Misuse
from kakoi.core.ids import ObjectId, PartyId
from kakoi.core.records import to_value
from kakoi.sdk.draft import (
    DATASHIELD_RULES,
    analysis_from_file,
    contract_from_file,
    merged_rules,
    pinned,
    policy_from_file,
    read_toml,
)
from kakoi.testing.world import NOW, World, policy
from support.tree import ROOT

PAGE: Final = (ROOT / "docs/formats/drafts.md").read_text("utf-8")
AUTHOR: Final = PartyId(ObjectId("a" * 64))


def example(kind: str) -> str:
    return PAGE.split(f"```toml {kind}\n")[1].split("```")[0]


def rows(section: str) -> dict[str, str]:
    """Name and meaning in the first table after a heading."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE))


def write_analysis(directory: Path, text: str) -> Path:
    (directory / "pressure.sql").write_text("SELECT 1")
    path = directory / "analysis.toml"
    path.write_text(text)
    return path


def code(call: Any) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    assert isinstance(caught.value, (Malformed, Misuse))
    return caught.value.code


# -- analyses


def test_the_documented_analysis_is_read(tmp_path: Path) -> None:
    analysis = analysis_from_file(write_analysis(tmp_path, example("analysis")), AUTHOR)
    assert (analysis.author, analysis.name, analysis.source) == (AUTHOR, "pressure", "SELECT 1")
    assert analysis.parameters == (
        Parameter(name="minimum_age", type="integer", minimum="18", maximum="80", choices=()),
        Parameter(name="smoker", type="string", minimum=None, maximum=None, choices=("yes", "no")),
    )
    assert [output.parameters for output in analysis.outputs] == [0]


def test_every_member_of_an_analysis_is_documented() -> None:
    members = set(Analysis.__slots__) - {"author"}
    assert set(rows("An analysis")) == members
    assert set(tomllib.loads(example("analysis"))) == members - {"sealed_code"}, "either a source or sealed code"
    text = PAGE.split("## An analysis\n")[1].split("## A contract")[0]
    for cls in (Output, Parameter):
        assert [name for name in cls.__slots__ if f"`{name}" not in text] == []


def test_what_may_be_left_out_of_an_analysis(tmp_path: Path) -> None:
    """Only what the page calls optional; every other member's absence is an error that names it."""
    value = tomllib.loads(example("analysis"))
    optional = {name for name, meaning in rows("An analysis").items() if meaning.startswith("optional")}
    for name in value:
        changed = {key: item for key, item in value.items() if key != name}
        path = write_analysis(tmp_path, toml(changed))
        if name in optional:
            assert getattr(analysis_from_file(path, AUTHOR), name) == ()
        else:
            with pytest.raises(Malformed) as caught:
                analysis_from_file(path, AUTHOR)
            assert name in caught.value.message


def toml(value: dict[str, Any]) -> str:
    """TOML of a plain value: enough for these tests."""

    def item(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {item(part)}" for key, part in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(item, value)) + "]"
        return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')

    return "\n".join(f"{key} = {item(part)}" for key, part in value.items())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"colour": "red"}, "record.unknown-field"),
        ({"author": "b" * 64}, "record.field"),
        ({"source": 5}, "draft.source"),
        ({"source": "none.sql"}, "file.missing"),
        ({"sealed_code": "a" * 64}, "draft.source"),
        ({"name": "two words"}, "record.field"),
        ({"outputs": []}, "record.field"),
        ({"outputs": "x"}, "record.field"),
        ({"parameters": ["x"]}, "record.field"),
        ({"reads": [{"table": "visits"}]}, "record.missing-field"),
    ],
    ids=str,
)
def test_analyses_that_are_refused(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    value = tomllib.loads(example("analysis")) | change
    if change == {"author": "b" * 64}:  # the file cannot say who its author is
        assert analysis_from_file(write_analysis(tmp_path, toml(value)), AUTHOR).author == AUTHOR
        return
    path = write_analysis(tmp_path, toml(value))
    assert code(lambda: analysis_from_file(path, AUTHOR)) == expected


def test_a_source_outside_the_directory_is_the_authors_business_but_must_be_text(tmp_path: Path) -> None:
    path = write_analysis(tmp_path, example("analysis"))
    (tmp_path / "pressure.sql").write_bytes(b"\xff\xfe")
    assert code(lambda: analysis_from_file(path, AUTHOR)) == "file.missing"
    (tmp_path / "pressure.sql").write_text("SELECT 1 \u202e --")
    assert code(lambda: analysis_from_file(path, AUTHOR)) == "record.field", "what people read is what runs"


# -- contracts


def contract_text() -> str:
    world = World()
    manifest = world.manifest(world.owners[0])
    text = example("contract")
    for mark, identity in (
        ("PARTY", world.analyst.id),
        ("OWNER", world.owners[0].id),
        ("MANIFEST", manifest.payload_id),
        ("ANALYSIS", world.analysis().payload_id),
    ):
        text = text.replace(f'"{mark}"', f'"{identity}"')
    return text


def read_contract(directory: Path, text: str) -> Contract:
    world = World()
    manifest = world.manifest(world.owners[0])
    path = directory / "contract.toml"
    path.write_text(text)
    return contract_from_file(
        path,
        drafter=world.analyst.id,
        manifests={manifest.payload_id: DatasetManifest.decode(manifest.payload)},
        code={},
        platforms=policy(),
        log=Contract.decode(world.bundle().contract.payload).log,
        now=NOW,
    )


def test_the_documented_contract_is_read(tmp_path: Path) -> None:
    contract = read_contract(tmp_path, contract_text())
    world = World()
    assert contract.drafter == world.analyst.id
    assert [(party.party, party.roles) for party in contract.parties] == [
        (world.owners[0].id, ("owner",)),
        (world.analyst.id, ("analyst",)),
    ]
    assert contract.data[0].owner == world.owners[0].id, "the owner is the one who sealed it, not who the file names"
    assert contract.data[0].rules.minimum_cell == 5
    assert (contract.not_before, contract.expires) == (NOW - 60, NOW + 30 * 86400)
    assert (contract.version, contract.supersedes) == (1, None)


def test_every_member_of_a_contract_draft_is_documented() -> None:
    documented = rows("A contract")
    rules = {name for name in documented if name in DisclosureRules.__slots__}
    assert rules == set(DisclosureRules.__slots__)
    members = set(documented) - rules
    assert set(tomllib.loads(example("contract"))) <= members
    assert members == {
        *("title", "purpose", "version", "supersedes", "party", "data", "analysis", "recipients"),
        *("limits", "accepted_weaknesses", "days", "code", "grace_days"),
    }


def test_documented_defaults_are_the_defaults() -> None:
    text = PAGE.split("| rule | left out | means |")[1]
    said = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    assert {name: value.strip('"') for name, value in said.items()} == {
        name: str(value) for name, value in to_value(DATASHIELD_RULES).items() if name != "kind"
    }
    assert merged_rules({}) == DATASHIELD_RULES


def test_what_may_be_left_out_of_a_contract(tmp_path: Path) -> None:
    value = tomllib.loads(contract_text())
    documented = rows("A contract")
    optional = {name for name, meaning in documented.items() if meaning.startswith("optional")}
    assert optional == {"version", "supersedes", "accepted_weaknesses", "code", "grace_days"}
    for name in value:
        text = toml({key: item for key, item in value.items() if key != name})
        if name in optional:
            read_contract(tmp_path, text)
        else:
            assert code(lambda text=text: read_contract(tmp_path, text)) in {"draft.member", "draft.days"}, name


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"colour": "red"}, "draft.unknown"),
        ({"days": True}, "draft.days"),
        ({"days": 1.5}, "draft.days"),
        ({"days": -1}, "draft.days"),
        ({"days": 10**9}, "record.field"),
        ({"version": 2}, "contract.version"),
        ({"supersedes": "c" * 64}, "contract.version"),
        ({"recipients": []}, "record.field"),
        ({"recipients": "all"}, "encoding.id"),
        ({"limits": {"wall_seconds": 60}}, "record.missing-field"),
        ({"party": "everybody"}, "draft.member"),
        ({"accepted_weaknesses": ["Not A Slug"]}, "record.field"),
    ],
    ids=str,
)
def test_contracts_that_are_refused(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    text = toml(tomllib.loads(contract_text()) | change)
    assert code(lambda: read_contract(tmp_path, text)) == expected


def test_the_next_version_names_the_one_before(tmp_path: Path) -> None:
    value = tomllib.loads(contract_text()) | {"version": 2, "supersedes": "c" * 64}
    contract = read_contract(tmp_path, toml(value))
    assert (contract.version, contract.supersedes) == (2, "c" * 64)


# -- files


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff", "draft.toml"),
        (b"a = ", "draft.toml"),
        (b"a = 1\na = 2", "draft.toml"),
        (b"#" * (256 * 1024 + 1), "draft.size"),
    ],
)
def test_files_that_are_no_toml(data: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(data)
    assert code(lambda: read_toml(tmp_path / "x.toml")) == expected


def test_an_absent_file_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    assert code(lambda: read_toml(tmp_path / "none.toml")) == "file.missing"
    assert code(lambda: policy_from_file(tmp_path / "none.json")) == "file.missing"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kind": "kakoi/attestation-policy/v1"}', "{", '{"a": 1.5}', "nonsense"]
)
def test_policies_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    assert code(lambda: policy_from_file(tmp_path / "p.json"))


def test_a_policy_may_be_laid_out_for_people(tmp_path: Path) -> None:
    """Unlike signed objects it may have blanks and any order: what is signed is the contract that it becomes part of."""
    import json

    (tmp_path / "p.json").write_text(json.dumps(to_value(policy()), indent=4))
    assert policy_from_file(tmp_path / "p.json") == policy()


def test_products_and_machines_can_be_pinned() -> None:
    """What was any machine becomes these; what was listed is replaced; other kinds stay as they are."""
    narrowed = pinned(policy(), ["software=4B414B4F4900", "software=00906ed50000"], ["software=" + "AB" * 16])
    (entry,) = narrowed.accepted
    assert [(s.name, s.accepted) for s in entry.settings] == [("product", ("4b414b4f4900", "00906ed50000"))]
    assert entry.platforms == ("ab" * 16,)
    assert pinned(narrowed, [], ["software=" + "cd" * 16]).accepted[0].platforms == ("cd" * 16,)
    assert pinned(policy(), [], []) == policy()


@pytest.mark.parametrize("text", ["software", "software=", "=x", "sgx=00906ed50000", "x"])
def test_pins_of_nothing(text: str) -> None:
    assert code(lambda: pinned(policy(), [text], [])) == "draft.pin"
    assert code(lambda: pinned(policy(), [], [text])) == "draft.pin"


def test_a_machine_is_named_in_hex() -> None:
    assert code(lambda: pinned(policy(), [], ["software=no hex"])) == "record.field"
