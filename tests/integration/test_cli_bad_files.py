"""Bad files, keys, parties and results at the command line: one clear error each, the exit code of its family, nothing half-written, no traceback."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from kakoi.broker.ledger import Decision, Ledger
from kakoi.core.dsse import Envelope
from kakoi.party.keystore import new_key_file
from support.command_line import Run, unchanged
from support.tree import ROOT

pytestmark = pytest.mark.usefixtures("impatient")
EXAMPLE: Final = ROOT / "examples/two-hospitals"
SCHEMA: Final = EXAMPLE / "visits.toml"
HEADER: Final = "patient,age,sex,smoker,pressure\n"
GOOD: Final = "N1,50,F,no,120\n"


# -- files of a hospital


FILES: Final[dict[str, tuple[str, int, str]]] = {
    "wrong type": (HEADER + GOOD + "N2,fifty,F,no,120\n", 4, "ingest.invalid-cells"),
    "fraction for an integer": (HEADER + GOOD + "N2,50.5,F,no,120\n", 4, "ingest.invalid-cells"),
    "number out of range": (HEADER + GOOD + "N2,500,F,no,120\n", 4, "ingest.invalid-cells"),
    "unknown code": (HEADER + GOOD + "N2,50,X,no,120\n", 4, "ingest.invalid-cells"),
    "missing text nobody declared": (HEADER + GOOD + "N2,50,F,no,-\n", 4, "ingest.invalid-cells"),
    "column missing": ("patient,age,sex,smoker\nN1,50,F,no\n", 3, "ingest.missing-column"),
    "column unknown": (HEADER.replace("\n", ",phone\n") + GOOD.replace("\n", ",555\n"), 3, "ingest.unknown-column"),
    "header twice": (HEADER.replace("\n", ",age\n") + GOOD.replace("\n", ",50\n"), 3, "csv.duplicate-header"),
    "row too short": (HEADER + GOOD + "N2,50,F\n", 3, "csv.ragged"),
    "empty file": ("", 3, "ingest.empty-file"),
    "no rows": (HEADER, 3, "ingest.no-rows"),
    "other delimiter": (HEADER.replace(",", ";") + GOOD.replace(",", ";"), 3, "csv.delimiter"),
    "not text": ("\0\1\2" * 50, 3, "csv.nul"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_do_not_fit_the_schema(case: str, run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    text, code, error = FILES[case]
    (tmp_path / "visits.csv").write_text(text)
    home, key = party
    with unchanged(home):
        ran = run("dataset", "seal", tmp_path / "visits.csv", "--schema", SCHEMA, "--party", home, "--key-file", key)
    assert (ran.code, ran.error) == (code, error), ran.err
    assert ran.out == ""
    for cell in ("fifty", "50.5", "500", "555", "N2"):
        assert cell not in ran.err, "a message holds no cell of anybody's data"


SCHEMAS: Final[dict[str, tuple[str, str, int, str]]] = {
    "direct identifier": ('identifier = "opt-out"', 'identifier = "direct"', 4, "schema.direct-identifier"),
    "unknown member": ('title = "', 'colour = "red"\ntitle = "', 3, "schema.field"),
    "unknown type": ('type = "integer"', 'type = "int"', 3, "schema.field"),
    "not TOML": ("[columns.age]", "[columns.age", 3, "schema.toml"),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_schemas_that_say_nonsense(case: str, run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    old, new, code, error = SCHEMAS[case]
    text = SCHEMA.read_text("utf-8")
    assert old in text
    changed = text.replace(old, new, 1)
    (tmp_path / "schema.toml").write_text(changed)
    home, key = party
    with unchanged(home):
        ran = run(
            "dataset",
            "seal",
            EXAMPLE / "north.csv",
            "--schema",
            tmp_path / "schema.toml",
            "--party",
            home,
            "--key-file",
            key,
        )
    assert (ran.code, ran.error) == (code, error), ran.err


def test_files_that_are_not_there(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    home, key = party
    keys = ("--party", home, "--key-file", key)
    with unchanged(tmp_path):
        for arguments in (
            ("dataset", "seal", tmp_path / "none.csv", "--schema", SCHEMA, *keys),
            ("dataset", "seal", EXAMPLE / "north.csv", "--schema", tmp_path / "none.toml", *keys),
            ("dataset", "inspect", tmp_path / "none"),
            ("party", "show", tmp_path / "none"),
            ("verify", tmp_path / "none.kakoi"),
            ("enclave", "measure", tmp_path / "none"),
        ):
            ran = run(*arguments)
            assert ran.code == 2, (arguments, ran.err)
            assert ran.error.endswith((".missing", ".file", ".empty")), ran.error


def test_directories_where_files_belong(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    home, key = party
    keys = ("--party", home, "--key-file", key)
    (tmp_path / "folder").mkdir()
    with unchanged(tmp_path):
        for arguments in (
            ("dataset", "seal", tmp_path / "folder", "--schema", SCHEMA, *keys),
            ("dataset", "seal", EXAMPLE / "north.csv", "--schema", tmp_path / "folder", *keys),
            ("verify", tmp_path / "folder"),
            ("party", "show", tmp_path / "folder"),
            ("party", "new", key, "--name", "X", "--key-file", key),
            ("party", "new", tmp_path / "x", "--name", "X", "--key-file", tmp_path / "folder"),
            ("platform", "new", key),
            ("platform", "collateral", tmp_path / "folder", "--out", tmp_path / "c.json"),
            ("enclave", "build", key),
        ):
            ran = run(*arguments)
            assert ran.code in (2, 5), (arguments, ran.err)
            assert ran.error


# -- keys and parties


def seal_with(run: Run, home: Path, *keys: object) -> tuple[int, str]:
    with unchanged(home):
        ran = run("dataset", "seal", EXAMPLE / "north.csv", "--schema", SCHEMA, "--party", home, *keys)
    return ran.code, ran.error


def test_wrong_keys(run: Run, party: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, key = party
    new_key_file(tmp_path / "other")
    assert seal_with(run, home, "--key-file", tmp_path / "other") == (4, "crypto.cannot-open")
    assert seal_with(run, home, "--key-file", tmp_path / "none") == (2, "file.missing")
    (tmp_path / "short").write_bytes(b"12345")
    (tmp_path / "short").chmod(0o600)
    assert seal_with(run, home, "--key-file", tmp_path / "short") == (2, "key.file-length")
    assert seal_with(run, home) == (2, "key.unlock"), "no terminal to ask at"
    monkeypatch.setenv("KAKOI_PASSPHRASE", "a passphrase where a key file is needed")
    assert seal_with(run, home) == (2, "key.unlock")
    key.chmod(0o644)
    assert seal_with(run, home, "--key-file", key) == (2, "key.permissions")


def test_unknown_parties(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    _, key = party
    for arguments in (
        ("broker", "log", "--party", tmp_path / "nobody"),
        ("dataset", "upload", "--party", tmp_path / "nobody", "--key-file", key, "--hub", "http://127.0.0.1:1"),
    ):
        with unchanged(tmp_path):
            ran = run(*arguments)
        assert (ran.code, ran.error) == (2, "party.missing")


def test_a_party_is_never_made_twice(run: Run, party: tuple[Path, Path]) -> None:
    home, key = party
    with unchanged(home.parent):
        ran = run("party", "new", home, "--name", "Again", "--key-file", key)
    assert (ran.code, ran.error) == (2, "key.exists")


def test_names_that_no_card_can_have(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("", " ", "x" * 200, "two\nlines", "left\u202eright"):
        with unchanged(tmp_path):
            ran = run("party", "new", tmp_path / "new", "--name", name, "--key-file", party[1])
        assert (ran.code, ran.error) == (3, "record.field"), name


def test_an_edited_card_is_refused(run: Run, party: tuple[Path, Path]) -> None:
    home, key = party
    card = Envelope.decode((home / "card.dsse").read_bytes())
    changed = replace(card, payload=card.payload.replace(b"North", b"South"))
    (home / "card.dsse").write_bytes(changed.encode())
    assert seal_with(run, home, "--key-file", key) == (4, "signature.invalid")
    ran = run("party", "show", home)
    assert (ran.code, ran.error) == (4, "signature.invalid")


def test_an_edited_ledger_is_fatal(run: Run, party: tuple[Path, Path]) -> None:
    home, _ = party
    ledger = Ledger(home / "ledger.sqlite")
    decision = Decision(at=1, run="", attempt=0, step="read", outcome="no", code="a.b", message="", hint="")
    ledger.note(decision)
    ledger.close()
    assert run("broker", "log", "--party", home).code == 0
    with closing(sqlite3.connect(home / "ledger.sqlite")) as database, database:
        database.execute("update decision set body = cast(replace(body, 'a.b', 'c.d') as blob)")
    ran = run("broker", "log", "--party", home)
    assert (ran.code, ran.error) == (6, "ledger.chain")


# -- results


def test_outputs_are_never_overwritten(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    home, key = party
    (tmp_path / "r.kakoi").write_bytes(b"precious")
    keys = ("--party", home, "--key-file", key, "--hub", "http://127.0.0.1:1", "--out", tmp_path / "r.kakoi")
    for arguments in (("run", "0" * 64, "counts", *keys), ("result", "open", "0" * 64, "1" * 64, *keys)):
        with unchanged(tmp_path):
            ran = run(*arguments)
        assert (ran.code, ran.error) == (2, "file.exists")


def test_outputs_into_directories_that_are_not_there(run: Run, tmp_path: Path) -> None:
    """Noticed before any work: nobody waits an hour for a result that cannot be written."""
    keys = ("--party", tmp_path / "p", "--key-file", tmp_path / "k", "--hub", "http://127.0.0.1:1")
    ran = run("run", "0" * 64, "counts", *keys, "--out", tmp_path / "none/r.kakoi")
    assert (ran.code, ran.error) == (2, "file.missing")


@pytest.mark.parametrize("data", [b"", b"{}", b"nonsense", b"\xff" * 100, b'{"kind":"kakoi/result-file/v1"}'])
def test_results_that_are_none(data: bytes, run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.kakoi").write_bytes(data)
    ran = run("verify", tmp_path / "r.kakoi")
    assert ran.code == 3
    assert ran.error.startswith(("encoding.", "record."))


# -- brokers and enclaves


def test_half_a_consent_to_the_software_platform(
    run: Run, party: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, key = party
    keys = ("--party", home, "--key-file", key, "--hub", "http://127.0.0.1:1", "--collateral", tmp_path / "c.json")
    monkeypatch.delenv("KAKOI_ACCEPT_SOFTWARE_PLATFORM", raising=False)
    ran = run("broker", "serve", *keys, "--accept-software-platform")
    assert (ran.code, ran.error) == (2, "software-platform.half")
    monkeypatch.setenv("KAKOI_ACCEPT_SOFTWARE_PLATFORM", "I know that it protects nothing")
    ran = run("broker", "serve", *keys)
    assert (ran.code, ran.error) == (2, "software-platform.half")


def test_an_enclave_without_its_image(run: Run, tmp_path: Path) -> None:
    options = ("--platform-directory", tmp_path, "--token-file", tmp_path / "t", "--hub", "http://127.0.0.1:1")
    ran = run("enclave", "serve", "--image", tmp_path / "none", *options)
    assert (ran.code, ran.error) == (2, "image.missing")


def test_images_and_platforms_are_never_overwritten(run: Run, tmp_path: Path) -> None:
    assert run("platform", "new", tmp_path / "platform").code == 0
    (tmp_path / "image").mkdir()
    with unchanged(tmp_path):
        for arguments in (("enclave", "build", tmp_path / "image"), ("platform", "new", tmp_path / "platform")):
            ran = run(*arguments)
            assert ran.code == 2, ran.err
            assert ran.error.endswith(".exists")
