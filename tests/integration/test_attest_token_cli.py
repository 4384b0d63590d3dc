"""``kakoi attest verify`` on token files: a draft, a verdict, and each outcome with its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kakoi.attest.policy import AttestationPolicy, TokenPolicy
from kakoi.attest.report import PlatformKind, TokenService
from kakoi.attest.software.verify import reference_policy
from kakoi.cli.main import app
from kakoi.core.encoding import dumps, loads
from kakoi.core.records import from_value
from kakoi.sdk.attest_file import AttestReport
from kakoi.testing import token_vendor as vendor
from kakoi.testing import x509_kit as kit

BOUND = vendor.REPORT_DATA


def kakoi(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["attest", *map(str, arguments)], env={"COLUMNS": "400", "KAKOI_LANG": "en"})


class Files:
    """A token, its key set and a policy on disk."""

    def __init__(self, folder: Path, service: TokenService, claims: dict[str, Any]) -> None:
        self.signed = vendor.make(service, claims)
        self.token, self.policy, self._folder = folder / "token.jwt", folder / "policy.json", folder
        self.token.write_bytes(self.signed.token + b"\n")
        self.base: list[str | Path] = ["verify", self.token, "--kind", service, "--at", str(kit.NOW)]
        if self.signed.keys is not None:
            (folder / "jwks.json").write_bytes(self.signed.keys)
            self.base += ["--jwks", folder / "jwks.json"]
        self.anchors = [word for anchor in self.signed.anchors for word in ("--anchor", anchor)]

    def draft(self, *more: str) -> TokenPolicy:
        result = kakoi(*self.base, *self.anchors, "--draft-policy", *more)
        assert result.exit_code == 0, result.output
        self.policy.write_text(result.stdout)
        return from_value(TokenPolicy, loads(result.stdout.strip().encode()), "policy")

    def judge(self, *more: str | Path, bound: bytes = BOUND) -> Result:
        return kakoi(*self.base, "--policy", self.policy, "--report-data", bound.hex(), *more)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, "intel-trust-authority", vendor.intel_claims())


def report(result: Result) -> AttestReport:
    return from_value(AttestReport, loads(result.stdout.strip().encode()), "report")


def test_from_a_token_to_a_verdict(files: Files) -> None:
    seen = kakoi(*files.base, *files.anchors)
    assert seen.exit_code == 1, "genuine under the anchor, and judged by nobody"
    assert "sgx" in seen.output
    demand = files.draft()
    assert (demand.accompanies, demand.service) == ("sgx", "intel-trust-authority")
    accepted = files.judge("--json")
    assert accepted.exit_code == 0, accepted.output
    verdict = report(accepted).verdict
    assert verdict is not None
    assert "setting.issuer" in {check.name for check in verdict.checks}
    shown = files.judge()
    assert "ACCEPTED" in shown.output
    assert "setting.issuer" in shown.output


def test_other_sessions_and_other_keys(files: Files) -> None:
    files.draft()
    other = files.judge("--json", bound=bytes(64))
    assert other.exit_code == 4
    found = report(other).verdict
    assert found is not None
    assert [check.name for check in found.failed] == ["report-data"]
    stranger = kakoi(*files.base, "--anchor", "00" * 32, "--json")
    assert stranger.exit_code == 4
    assert report(stranger).outcome == "not-genuine"
    files.token.write_bytes(files.signed.token[:-8])
    assert files.judge("--json").exit_code in (3, 4)


def test_calls_that_mean_nothing(files: Files, tmp_path: Path) -> None:
    assert kakoi(*files.base).exit_code == 2, "no key is built in"
    files.draft()
    assert kakoi(*files.base, "--policy", files.policy).exit_code == 2, "a policy needs the session's report data"
    azure = [word if word != "intel-trust-authority" else "azure-maa" for word in files.base]
    assert kakoi(*azure, "--policy", files.policy, "--report-data", BOUND.hex()).exit_code == 2
    assert kakoi("verify", files.token, "--kind", "sgx", "--anchor", "00" * 32).exit_code == 2
    assert kakoi("verify", files.token, "--kind", "jwt").exit_code == 2
    files.policy.write_text("{}")
    assert files.judge().exit_code == 3


def test_a_whole_policy_chooses_by_kind_of_platform(files: Files) -> None:
    entry = reference_policy(mrenclave="66" * 32, root="ab" * 32)
    kinds: tuple[PlatformKind, ...] = ("software", "sgx")
    accepted = tuple(
        from_value(type(entry), {**json.loads(entry.encode()), "platform": kind}, "entry") for kind in kinds
    )
    demands = tuple(files.draft("--beside", kind) for kind in kinds)
    files.policy.write_bytes(AttestationPolicy(accepted=accepted, tokens=demands).encode())
    assert files.judge().exit_code == 2
    assert files.judge("--beside", "software").exit_code == 0
    assert files.judge("--beside", "tdx").exit_code == 2
    shown = kakoi("policy", files.policy)
    assert "A token of intel-trust-authority is demanded beside evidence of software" in shown.output
    assert dumps(json.loads(files.policy.read_text())) == files.policy.read_bytes()
