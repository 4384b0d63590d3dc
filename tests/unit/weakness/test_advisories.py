"""Advisories about packages: what is read, what it is about, and that nothing unreadable passes for nothing known."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from kakoi.core.errors import KakoiError, Malformed
from kakoi.guard.weakness.advisory import Component, matches, parse
from kakoi.guard.weakness.collecting import collect, of_zip
from kakoi.guard.weakness.snapshot import Snapshot, decode, parsed, read
from support.tree import ROOT

SNAPSHOT = ROOT / "requirements/advisories.json"


def osv(*events: dict[str, str], versions: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "id": "PYSEC-1",
        "aliases": ["CVE-1"],
        "published": "2024-01-02T03:04:05Z",
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "A_B.c"},
                "ranges": [
                    {"type": "GIT", "events": [{"introduced": "0"}]},
                    {"type": "ECOSYSTEM", "events": list(events)},
                ],
                "versions": list(versions),
            }
        ],
        **more,
    }


def hit(record: dict[str, Any], version: str) -> bool:
    advisory = parse(record)
    assert advisory is not None
    return bool(matches([Component(name="a-b-c", version=version)], [advisory]))


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ([{"introduced": "0"}, {"fixed": "1.2"}], ["0.0.1", "1.1.9", "1.2rc1"], ["1.2", "2"]),
        ([{"introduced": "1.0"}, {"last_affected": "1.4"}], ["1.0", "1.4"], ["0.9", "1.4.1"]),
        ([{"introduced": "0"}], ["0", "9999"], []),
        (
            [{"fixed": "1.2"}, {"introduced": "0"}, {"introduced": "2.0"}, {"fixed": "2.1"}],
            ["1.1", "2.0"],
            ["1.2", "2.1"],
        ),
        ([{"introduced": "0"}, {"fixed": "0.2.0-n653"}], ["0.1", "9"], []),
        ([{"introduced": "no version"}, {"fixed": "2"}], ["0.1", "1"], ["2"]),
    ],
)
def test_ranges(events: list[dict[str, str]], inside: list[str], outside: list[str]) -> None:
    """OSV's own rules; a bound that is no version makes the range wider, never narrower."""
    record = osv(*events)
    assert [version for version in inside if not hit(record, version)] == []
    assert [version for version in outside if hit(record, version)] == []


def test_versions_that_are_named_one_by_one() -> None:
    record = osv(versions=("1.0", "1.0.post1", "not a version"))
    assert hit(record, "1.0")
    assert hit(record, "1.0.0")
    assert not hit(record, "1.1")


def test_a_finding_says_where_it_is_fixed() -> None:
    advisory = parse(osv({"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "2"}, {"fixed": "2.3"}))
    assert advisory is not None
    found = matches([Component(name="A.B_C", version="1.0"), Component(name="a-b-c", version="2.1")], [advisory])
    assert sorted(item.fixed for item in found) == ["1.2", "2.3"]
    assert found[0].advisory.names == ("PYSEC-1", "CVE-1")


def test_what_is_withdrawn_or_about_something_else_is_no_advisory() -> None:
    assert parse(osv({"introduced": "0"}, withdrawn="2024-01-01T00:00:00Z")) is None
    other = osv({"introduced": "0"})
    other["affected"][0]["package"]["ecosystem"] = "npm"
    assert parse(other) is None


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        {"id": 1},
        {"id": "X", "affected": [7]},
        {"id": "X", "affected": [{"package": {"ecosystem": "PyPI"}}]},
        {"id": "X", "affected": [{"package": {"ecosystem": "PyPI", "name": "a"}, "ranges": [{"type": "ECOSYSTEM"}]}]},
        {"id": "X", "affected": [{"package": {"ecosystem": "PyPI", "name": "a"}, "ranges": 5}]},
    ],
)
def test_an_unreadable_record_is_refused(record: Any) -> None:
    with pytest.raises(Malformed, match="OSV"):
        parse(record)


def test_a_version_that_nobody_can_compare_is_refused() -> None:
    with pytest.raises(Malformed, match="PEP 440"):
        matches([Component(name="a-b-c", version="7 beta of Tuesday")], [])


@given(st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_snapshot_or_our_error(data: bytes) -> None:
    with pytest.raises(KakoiError):
        decode(data)


def test_a_snapshot_keeps_what_it_matches() -> None:
    records = [osv({"introduced": "0"}, {"fixed": "1.2"}), osv(versions=("3.1",), id="PYSEC-2")]
    before = Snapshot(source="s", revision="r", date="2024-01-02", advisories=parsed(records))
    after = decode(before.encode())
    assert after.encode() == before.encode()
    for version in ("1.1", "1.2", "3.1"):
        component = [Component(name="a-b-c", version=version)]
        assert [f.advisory.id for f in matches(component, after.advisories)] == [
            f.advisory.id for f in matches(component, before.advisories)
        ]


def test_files_directories_and_zip_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    record = osv({"introduced": "0"}, {"fixed": "1.10"})
    (tmp_path / "deep/one.json").write_text(json.dumps(record))
    (tmp_path / "two.yaml").write_text(
        "id: PYSEC-2\npublished: 2024-02-29\naffected:\n- package: {ecosystem: PyPI, name: d}\n"
        "  ranges:\n  - type: ECOSYSTEM\n    events:\n    - introduced: 0\n    - fixed: 1.10\n"
    )
    found = {advisory.id: advisory for advisory in collect(tmp_path)}
    assert set(found) == {"PYSEC-1", "PYSEC-2"}
    assert found["PYSEC-2"].affected[0].spans[0].fixed == "1.10", "a version is text, not the number 1.1"
    assert found["PYSEC-2"].published == "2024-02-29"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("PYSEC-1.json", json.dumps(record))
    assert [item.id for item in parsed(of_zip(packed.getvalue()))] == ["PYSEC-1"]
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(Malformed, match="JSON or YAML"):
        collect(tmp_path)


def test_zip_bombs_and_broken_zips() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.json", b" " * (5 << 20))
    assert len(packed.getvalue()) < 20_000
    with pytest.raises(Malformed, match="size"):
        list(of_zip(packed.getvalue()))
    with pytest.raises(Malformed, match="damaged"):
        list(of_zip(packed.getvalue()[:-30]))


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("id: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(Malformed):
        collect(path)


def test_our_own_locks_are_held_against_the_pinned_snapshot() -> None:
    """And the check can fail: with old versions of what we use, known advisories are found."""
    snapshot = read(SNAPSHOT)
    assert len(snapshot.revision) == 40
    assert len(snapshot.advisories) > 100
    old = [Component(name="cryptography", version="41.0.5"), Component(name="jinja2", version="2.10")]
    found = {(item.component.name, item.advisory.id) for item in matches(old, snapshot.advisories)}
    assert ("cryptography", "PYSEC-2023-254") in found
    assert {name for name, _ in found} == {"cryptography", "jinja2"}
    assert Version("41.0.6") in {Version(item.fixed) for item in matches(old[:1], snapshot.advisories)}
