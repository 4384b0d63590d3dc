"""T16: the software platform is admitted by three separate acts; each missing half refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakoi.attest import registry
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.software.verify import reference_policy
from kakoi.broker import devmode
from kakoi.core.errors import Misuse, Refused
from kakoi.evidence import software

NOW = 1_800_000_000
CONSENT = {devmode.VARIABLE: devmode.CONSENT}


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("environment", [{}, {devmode.VARIABLE: "1"}, {devmode.VARIABLE: ""}, CONSENT])
@pytest.mark.parametrize("contract", [False, True])
def test_each_half_alone_refuses(tmp_path: Path, flag: bool, environment: dict[str, str], contract: bool) -> None:
    platform = software.create(tmp_path / "platform")
    entry = reference_policy(mrenclave="ab" * 32, root=platform.root_spki_sha256)
    fields = {name: getattr(entry, name) for name in entry.__slots__}
    named = entry if contract else type(entry)(**fields | {"platform": "sgx"})
    policy = AttestationPolicy(accepted=(named,))
    said = environment == CONSENT

    def judge() -> None:
        verdict = registry.judge(
            platform.quote(bytes(64), bytes.fromhex("ab" * 32)),
            platform.collateral(NOW),
            policy,
            report_data=bytes(64),
            now=NOW,
            verifiers=devmode.verifiers(flag=flag, environment=environment)(policy),
        )
        assert not verdict.protected_by_hardware

    if flag and said and contract:
        judge()
        return
    with pytest.raises((Misuse, Refused)) as caught:
        judge()
    expected = (
        {"software-platform.half"} if flag != said else {"appraisal.platform-not-accepted", "appraisal.no-verifier"}
    )
    assert caught.value.code in expected
