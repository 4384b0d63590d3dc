"""``kakoi attest`` as people type it: real evidence of every kind, every outcome with its exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kakoi.attest.policy import AttestationPolicy, ReferenceValue
from kakoi.attest.report import Evidence
from kakoi.attest.software.verify import reference_policy
from kakoi.cli.main import app
from kakoi.core.encoding import dumps, loads
from kakoi.core.records import from_value
from kakoi.evidence import software
from kakoi.sdk.attest_file import AttestReport
from kakoi.testing import azure_vendor, x509_kit

EVIDENCE = Path(os.environ.get("KAKOI_SHARED", "../shared")).resolve() / "evidence"
recorded = pytest.mark.skipif(not EVIDENCE.is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)")
NOW = x509_kit.NOW
REPORT_DATA = bytes(range(64))
MRENCLAVE = bytes(range(32))


def kakoi(*arguments: str | Path) -> Result:
    # Wide, so that nothing in a table is folded.
    environment = {"COLUMNS": "400", "KAKOI_LANG": "en"}
    return CliRunner().invoke(app, ["attest", *map(str, arguments)], env=environment)


def report(result: Result) -> AttestReport:
    return from_value(AttestReport, loads(result.stdout.strip().encode()), "report")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Evidence of a software platform with its collateral and a policy that accepts it."""
    software.create(tmp_path / "platform")
    platform = software.SoftwarePlatform.load(tmp_path / "platform")
    (tmp_path / "evidence.json").write_bytes(platform.quote(REPORT_DATA, MRENCLAVE).encode())
    (tmp_path / "collateral.json").write_bytes(platform.collateral(NOW).encode())
    entry = reference_policy(mrenclave=MRENCLAVE.hex(), root=platform.root_spki_sha256)
    (tmp_path / "policy.json").write_bytes(AttestationPolicy(accepted=(entry,)).encode())
    return tmp_path


def arguments(folder: Path, **changes: str) -> list[str]:
    given = {
        "--collateral": str(folder / "collateral.json"),
        "--policy": str(folder / "policy.json"),
        "--at": str(NOW + 60),
        "--report-data": REPORT_DATA.hex(),
    } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return ["verify", str(folder / "evidence.json"), *(word for pair in given.items() for word in pair if pair[1])]


def test_accepted_and_labelled(folder: Path) -> None:
    result = kakoi(*arguments(folder))
    assert result.exit_code == 0, result.output
    assert "ACCEPTED" in result.output
    assert "NOT PROTECTED BY HARDWARE" in result.output
    for check in ("report-data", "measurement.mrenclave", "dcap.signature", "tcb-status", "minimum-tcb"):
        assert check in result.output
    found = report(kakoi(*arguments(folder), "--json"))
    assert (found.outcome, found.unappraised, found.trouble) == ("accepted", None, None)
    assert found.verdict is not None
    assert not found.verdict.failed
    assert found.verdict.evaluated_at == NOW + 60


def test_json_is_canonical(folder: Path) -> None:
    line = kakoi(*arguments(folder), "--json").stdout
    assert line == dumps(json.loads(line)).decode() + "\n"


def test_every_mismatch_is_printed_with_who_can_mend_it(folder: Path) -> None:
    policy = AttestationPolicy.decode((folder / "policy.json").read_bytes())
    other = ReferenceValue(name="mrenclave", accepted=("00" * 32,))
    entry = replace(policy.accepted[0], measurements=(other,), statuses=("OutOfDate",))
    (folder / "policy.json").write_bytes(AttestationPolicy(accepted=(entry,)).encode())
    result = kakoi(*arguments(folder, report_data="ff" * 64))
    assert result.exit_code == 4
    lines = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if line.count("│") == 6}
    assert "whoever builds the enclave" in lines["measurement.mrenclave"]
    assert MRENCLAVE.hex() in lines["measurement.mrenclave"]
    assert "the machine's operator" in lines["tcb-status"]
    assert "nobody" in lines["report-data"]
    assert "the owners, by their policy" in lines["hardware"]
    assert next(iter(lines)) == "report-data"  # what refuses comes first
    assert "REFUSED" in result.stdout
    assert "appraisal.refused" in result.stderr
    found = report(kakoi(*arguments(folder, report_data="ff" * 64), "--json"))
    assert found.verdict is not None
    assert {c.name for c in found.verdict.failed} == {"report-data", "measurement.mrenclave", "tcb-status"}


def _cut(folder: Path) -> None:
    evidence = Evidence.decode((folder / "evidence.json").read_bytes())
    (folder / "evidence.json").write_bytes(replace(evidence, statement=evidence.statement[:-1]).encode())


def _turned(folder: Path) -> None:
    evidence = Evidence.decode((folder / "evidence.json").read_bytes())
    turned = evidence.statement[:120] + bytes([evidence.statement[120] ^ 1]) + evidence.statement[121:]
    (folder / "evidence.json").write_bytes(replace(evidence, statement=turned).encode())


def _nothing(folder: Path) -> None:
    (folder / "evidence.json").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "exit_code", "code"),
    [(_cut, 3, "dcap.quote"), (_turned, 4, "x509.signature"), (_nothing, 3, "encoding.json")],
)
def test_what_is_not_genuine(folder: Path, spoil: Callable[[Path], None], exit_code: int, code: str) -> None:
    spoil(folder)
    result = kakoi(*arguments(folder))
    assert result.exit_code == exit_code
    assert f"[{code}]" in result.stderr
    if spoil is not _nothing:
        assert "NOT GENUINE" in result.stdout
        found = report(kakoi(*arguments(folder), "--json"))
        assert found.trouble is not None
        assert (found.outcome, found.verdict, found.trouble.code) == ("not-genuine", None, code)


def test_stale_collateral(folder: Path) -> None:
    result = kakoi(*arguments(folder, at="2099-01-01T00:00:00Z"))
    assert result.exit_code == 4
    assert "NOT GENUINE" in result.stdout


def test_software_without_a_policy_has_no_root(folder: Path) -> None:
    result = kakoi(*arguments(folder, policy="", report_data=""))
    assert result.exit_code == 4
    assert "attest.no-verifier" in result.stderr


def test_kind_that_the_policy_does_not_name(folder: Path) -> None:
    evidence = Evidence.decode((folder / "evidence.json").read_bytes())
    (folder / "evidence.json").write_bytes(replace(evidence, platform="sgx").encode())
    result = kakoi(*arguments(folder), "--json")
    assert result.exit_code == 4
    assert report(result).outcome == "refused"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"report_data": ""}, "attest.report-data"),
        ({"report_data": "abc"}, "attest.hex"),
        ({"report_data": "abcd"}, "appraisal.report-data"),
        ({"at": "yesterday"}, "attest.time"),
        ({"at": "2026-02-30T00:00:00Z"}, "attest.time"),
        ({"kind": "enclave"}, "attest.kind"),
        ({"policy": "none.json"}, "file.missing"),
        ({"collateral": "none.json"}, "file.missing"),
    ],
)
def test_misuse(folder: Path, change: dict[str, str], code: str) -> None:
    result = kakoi(*arguments(folder, **change))
    assert result.exit_code == 2
    assert code in result.stderr


def test_policy_is_shown_with_its_reasons(folder: Path) -> None:
    result = kakoi("policy", folder / "policy.json")
    assert result.exit_code == 0
    assert MRENCLAVE.hex() in result.stdout
    assert "no firmware to bound" in result.stdout


def test_japanese(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["attest", *arguments(folder)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300", "KAKOI_LANG": "ja"})
    assert result.exit_code == 0
    assert "承認" in result.stdout
    assert "ハードウェアによる保護なし" in result.stdout


# --- recorded evidence, as its sources hand it out -------------------------------------------------------------------

KINDS: dict[str, list[str]] = {
    "sgx": ["dcap/phala_sgx_quote_v3.quote", "dcap/phala_sgx_quote_v3.2025-06-19.collateral.json", "1751000000"],
    "tdx": ["dcap/near_mpc_quote.quote", "dcap/near_mpc_quote.2026-08-13.collateral.json", "1787894484"],
    "snp": ["snp/oak_genoa_oc_report.bin", "snp/oak_genoa_oc_vcek.der", "snp/roots_ask_ark_genoa.pem", "1757179301"],
    "nitro": ["nitro/dstack_nitro_attestation_full.cose", "1766678716"],
    "azure-snp": ["azure/trustee_snp_evidence_genoa.json", "snp/roots_ask_ark_genoa.pem", "1760000000"],
    "azure-tdx": [
        "azure/lunal_az_tdx_live-evidence.json",
        "dcap/lunal_az_tdx_live-evidence.td_quote.2026-02-18.collateral.json",
        "1771545600",
    ],
}


def raw(kind: str, *more: str) -> list[str]:
    file, *collateral, at = KINDS[kind]
    given = [word for path in collateral for word in ("--collateral", str(EVIDENCE / path))]
    return ["verify", str(EVIDENCE / file), "--kind", kind, "--at", at, *given, *more]


@recorded
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_evidence_without_a_policy_is_not_appraised(kind: str) -> None:
    result = kakoi(*raw(kind))
    assert result.exit_code == 1, result.output
    assert "NOTHING WAS APPRAISED" in result.stdout
    assert "ACCEPTED" not in result.stdout
    found = report(kakoi(*raw(kind), "--json"))
    assert (found.outcome, found.verdict) == ("not-appraised", None)
    assert found.unappraised is not None
    assert found.unappraised.protected_by_hardware
    assert found.unappraised.claims.platform == kind


@recorded
@pytest.mark.parametrize("kind", KINDS)
def test_a_drafted_policy_accepts_what_it_was_drafted_from(kind: str, tmp_path: Path) -> None:
    drafted = kakoi(*raw(kind, "--draft-policy"))
    assert drafted.exit_code == 0, drafted.output
    policy = AttestationPolicy.decode(drafted.stdout.strip().encode())
    assert [entry.platform for entry in policy.accepted] == [kind]
    (tmp_path / "policy.json").write_text(drafted.stdout)
    bound = report(kakoi(*raw(kind), "--json")).unappraised
    assert bound is not None
    more = ["--policy", str(tmp_path / "policy.json"), "--report-data"]
    accepted = kakoi(*raw(kind, *more, bound.claims.report_data))
    if len(bound.claims.report_data) in (64, 96, 128):
        assert accepted.exit_code == 0, accepted.output
    else:  # some attesters used a short text: no session of ours could be bound to it
        assert (accepted.exit_code, "appraisal.report-data" in accepted.stderr) == (2, True)
    assert kakoi(*raw(kind, *more, "00" * 64)).exit_code == 4


@recorded
def test_text_forms_of_binary_evidence(tmp_path: Path) -> None:
    data = (EVIDENCE / "snp/oak_genoa_oc_report.bin").read_bytes()
    words = raw("snp")
    (tmp_path / "report.hex").write_text(data.hex().upper() + "\n")
    words[1] = str(tmp_path / "report.hex")
    assert kakoi(*words).exit_code == 1


@recorded
def test_azure_json_that_lacks_something(tmp_path: Path) -> None:
    good: dict[str, Any] = json.loads((EVIDENCE / "azure/trustee_snp_evidence_genoa.json").read_bytes())
    words = raw("azure-snp")
    words[1] = str(tmp_path / "evidence.json")
    wrong: list[Any] = [[], {}, {**good, "tpm_quote": 1, "quote": 1}, {"quote": {"pcrs": [[1, 256]]}, "report": "00"}]
    for value in wrong:
        (tmp_path / "evidence.json").write_text(json.dumps(value))
        result = kakoi(*words)
        assert (result.exit_code, "evidence.file" in result.stderr) == (3, True), result.output


def test_minted_evidence_is_refused_by_the_product(tmp_path: Path) -> None:
    """Test vendors sign as the real ones do, under roots that the product does not pin."""
    guest = azure_vendor.guest()
    (tmp_path / "evidence.json").write_bytes(guest.evidence().encode())
    pieces = guest.vendor.collateral(guest.chip)
    words: list[str | Path] = ["verify", tmp_path / "evidence.json", "--at", str(NOW)]
    for name, data in pieces.items():
        (tmp_path / name).write_bytes(data)
        words += ["--collateral", tmp_path / name]
    result = kakoi(*words)
    assert result.exit_code == 4
    assert "x509.root" in result.stderr
