"""``kakoi conformance`` as people type it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kakoi.cli.main import app
from kakoi.conformance.run import Report
from kakoi.conformance.trial import Trial
from support.tree import ROOT

ADAPTER = f"{sys.executable} {ROOT / 'examples/adapters/dcap_qvl_adapter.py'}"
QUICK = ["--kind", "azure-maa", "--kind", "intel-trust-authority", "--sample", "1"]


def kakoi(*words: str) -> Result:
    return CliRunner().invoke(app, ["conformance", *words], env={"COLUMNS": "300", "KAKOI_LANG": "en"})


def test_ours_pass_with_nothing_but_the_package(tmp_path: Path) -> None:
    result = kakoi(*QUICK, "--report", str(tmp_path / "report.json"))
    assert result.exit_code == 0, result.output
    assert "No bad twin passed, and no good one was refused." in result.stdout
    report = Report.decode((tmp_path / "report.json").read_bytes().rstrip(b"\n"))
    assert (report.target, report.sample, report.findings) == ("kakoi", 1, ())
    assert {tally.kind_of_evidence for tally in report.tallies} == {"azure-maa", "intel-trust-authority"}
    assert sum(tally.twins for tally in report.tallies) > 40


def test_another_verifier_is_named_with_what_it_accepted() -> None:
    result = kakoi("--kind", "sgx", "--sample", "8", "--layer", "verify", "--adapter", ADAPTER)
    assert result.exit_code == 4
    assert "conformance.findings" in result.stderr
    for words in (
        "accepted, should be refused",
        "binding.qe-report",
        "TCB information of another PCEID",
        "quote.extend",
    ):
        assert words in result.stdout
    machine = json.loads(
        kakoi("--kind", "sgx", "--sample", "1", "--layer", "verify", "--adapter", ADAPTER, "--json").stdout
    )
    assert machine["kind"] == "kakoi/conformance-report/v1"
    assert {finding["problem"] for finding in machine["findings"]} == {"accepted"}
    assert all(finding["layer"] == "verify" for finding in machine["findings"])


def test_one_trial_can_be_seen() -> None:
    result = kakoi("--kind", "intel-trust-authority", "--show", "minted-intel-trust-authority/window.time/2")
    assert result.exit_code == 0
    assert "expired a month ago · window · verify" in result.stderr
    trial = Trial.decode(result.stdout.strip().encode())
    assert trial.format == "intel-trust-authority"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--kind", "enclave"], "conformance.kind"),
        (["--kind", "azure-maa", "--layer", "both"], "conformance.layer"),
        (["--kind", "azure-maa", "--adapter", "no-such-program-here"], "conformance.adapter"),
        (["--kind", "azure-maa", "--vectors", "no-such-folder"], "conformance.vectors"),
        (["--kind", "azure-maa", "--show", "minted-azure-maa/token.flip/99999999"], "conformance.twin"),
        (["--kind", "azure-maa", "--show", "nonsense"], "conformance.twin"),
    ],
)
def test_misuse(words: list[str], code: str) -> None:
    result = kakoi(*words)
    assert (result.exit_code, code in result.stderr) == (2, True), result.output


def test_an_adapter_that_never_answers_is_told() -> None:
    result = kakoi("--kind", "azure-maa", "--adapter", f"{sys.executable} -c pass")
    assert result.exit_code == 5
    assert "conformance.silent" in result.stderr
