"""Error codes: one meaning each, written down, and said in Japanese too."""

from __future__ import annotations

import re
import tomllib

import pytest

from support.error_codes import PASSED_ON, Scan, errors_page
from support.tree import ROOT, SRC

SCAN = Scan()
CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)+\Z")
JAPANESE = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]")


def _japanese() -> dict[str, dict[str, str]]:
    flat: dict[str, dict[str, str]] = {}

    def walk(value: dict[str, object], path: str) -> None:
        for key, item in value.items():
            if isinstance(item, dict):
                walk(item, f"{path}.{key}" if path else key)
            else:
                flat.setdefault(path, {})[key] = str(item)

    walk(tomllib.loads((SRC / "cli/messages/errors.ja.toml").read_text("utf-8")), "")
    return flat


def test_the_scan_finds_codes() -> None:
    assert len(SCAN.codes) > 200
    assert {"signature.invalid", "crypto.cannot-open", "x509.revoked", "sql.statement"} <= set(SCAN.codes)


def test_every_code_is_readable_in_the_source() -> None:
    """A code made at run time could not be documented. Places that pass on somebody else's are listed."""
    assert not SCAN.unresolved, f"write the code as a literal, or add the place to {sorted(PASSED_ON)}"


@pytest.mark.parametrize("code", sorted(SCAN.codes))
def test_each_code_has_the_form_and_one_family(code: str) -> None:
    assert CODE.match(code)
    assert len(SCAN.codes[code].families) == 1, f"raised as {SCAN.codes[code].families} in {SCAN.codes[code].places}"


def test_messages_state_what_was_expected() -> None:
    """Every message says something, and none ends like a sentence of prose."""
    odd = [
        code for code, entry in SCAN.codes.items() if entry.message.endswith((".", "!")) or entry.message[:1].isspace()
    ]
    assert not odd


def test_the_page_of_errors_is_up_to_date() -> None:
    assert (ROOT / "docs/errors.md").read_text("utf-8") == errors_page(), "run: python scripts/errors_doc.py"


def test_every_code_has_japanese() -> None:
    missing = sorted(set(SCAN.codes) - set(_japanese()))
    assert not missing


def test_japanese_has_no_code_that_nobody_raises() -> None:
    assert not sorted(set(_japanese()) - set(SCAN.codes))


def test_japanese_is_japanese() -> None:
    for code, entry in _japanese().items():
        assert set(entry) == {"message", "hint"}, code
        assert JAPANESE.search(entry["message"]), code
        assert not entry["hint"] or JAPANESE.search(entry["hint"]), code
        assert "{" not in entry["message"] + entry["hint"], code
