"""Whole runs under a contract that demands a token: hub, enclave and one owner's broker are the product's programs.

The attestation service is on loopback and lies on demand. Each lie is refused by every broker, with the reason in its log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy, TokenPolicy
from kakoi.attest.report import Collateral, Part, TokenService
from kakoi.attest.software.admit import with_software
from kakoi.attest.tokens.verifier import verify_token
from kakoi.broker import devmode
from kakoi.broker.ledger import Ledger
from kakoi.cli.demo.cast import Cast
from kakoi.cli.demo.data import write_hospitals
from kakoi.cli.demo.stage import Stage
from kakoi.cli.hub import log_key
from kakoi.cli.ui import SystemClock
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.enclave.keeper.drive import SILENT_ATTEMPTS
from kakoi.enclave.sandbox import layers
from kakoi.net.client import HubClient
from kakoi.sdk.run import Opened, RunDenied, await_run, bindings, load_agreement, open_result, request_run
from kakoi.sdk.verify import verify_result
from kakoi.testing import token_vendor as vendor
from support.token_services import Service, mrenclave_of, now, report_data_of, serving

pytestmark = pytest.mark.xdist_group("token-runs")
SERVICE: TokenService = "intel-trust-authority"


def claims(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What an honest service says about the quote that it was shown."""
    at = now()
    times = {"iat": at - 5, "nbf": at - 5, "exp": at + 300}
    shown = {"sgx_mrenclave": mrenclave_of(body), "sgx_report_data": report_data_of(body).hex()}
    return vendor.intel_claims(**{**times, **shown, **changes})


@dataclass
class TokenWorld:
    """A deployment whose contract demands a token of Intel Trust Authority beside the software platform's evidence."""

    stage: Stage
    cast: Cast
    client: HubClient
    service: Service
    contracts: list[ObjectId] = field(default_factory=list)

    def policy(self, measurement: bytes) -> TokenPolicy:
        """What the owners demand: the image's measurement, from this service's key, at most five minutes old."""
        body = {"sgx_mrenclave": measurement.hex(), "iat": now(), "nbf": now(), "exp": now() + 300}
        signed = vendor.make(SERVICE, vendor.intel_claims(**body))
        keys = Collateral(parts=(Part(name="jwks", data=signed.keys or b""),))
        seen = verify_token(signed.token, SERVICE, keys, anchors=signed.anchors, now=now())
        return TokenPolicy(accompanies="software", service=SERVICE, claims=draft(seen, collateral_max_age=300))

    def ask(self, contract: ObjectId) -> ObjectId:
        """A run of ``counts``."""
        agreement = load_agreement(self.client, contract)
        counts = self.cast.analyses["counts"]
        return request_run(self.client, self.cast.researcher, agreement, counts, bindings({}), SystemClock().now())

    def result(self, contract: ObjectId, run: ObjectId) -> Opened:
        agreement = load_agreement(self.client, contract)
        quiet: Callable[[str, str], None] = lambda kind, who: None  # noqa: E731
        sealed = await_run(self.client, agreement, run, clock=SystemClock(), seconds=120, tell=quiet)
        return open_result(self.client, self.cast.researcher, sealed, verifiers=with_software)

    def decisions(self, run: ObjectId, refused: bool) -> list[dict[str, Any]]:
        """What the owners' ledgers say about a run, once one of them has said its last word."""
        deadline = time.monotonic() + 60
        while True:
            found: list[dict[str, Any]] = []
            for home in self.cast.hospitals:
                ledger = Ledger(home.path / "ledger.sqlite")
                found += [dict(d) for d in ledger.decisions() if d["run"] == run]
                ledger.close()
            if any((d["outcome"] == "no") == refused and d["step"] in ("grant", "denial") for d in found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


def honest(body: dict[str, Any]) -> bytes:
    return answer(vendor.make(SERVICE, claims(body)).token)


def answer(token: bytes) -> bytes:
    return json.dumps({"token": token.decode()}).encode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenWorld]:
    directory: Path = tmp_path_factory.mktemp("tokens")
    cast = Cast(directory=directory)
    files = write_hospitals(directory)[:2]
    cast.make_parties(files)
    measurement = cast.make_enclave()
    keys, api_key = directory / "jwks.json", directory / "api.key"
    signer = vendor.rsa(True)
    keys.write_bytes(vendor.key_set(vendor.jwk(signer.public)))
    api_key.write_text("the operator's key\n")
    with Stage(directory) as stage, serving() as service:
        client = stage.start_hub()
        for home, item in zip(cast.hospitals, files, strict=True):
            cast.seal_and_upload(client, home, item)
        made = TokenWorld(stage=stage, cast=cast, client=client, service=service)
        plain = cast.draft(client, log_key(directory / "hub"), layers.missing(), max_runs=100)
        own = tuple(entry for entry in plain.platforms.accepted if entry.platform == "software")
        for tokens in ((made.policy(measurement),), ()):
            policy = AttestationPolicy(accepted=own, tokens=tokens)
            made.contracts.append(cast.publish(client, replace(plain, platforms=policy)))
        for home in cast.hospitals:
            command = ["broker", "serve", "--party", str(home.path), "--hub", stage.hub_url]
            command += ["--collateral", str(cast.collateral), "--token-keys", f"{SERVICE}={keys}"]
            command += ["--accept-software-platform", "--key-file", str(home.path / "key")]
            stage.start(home.card.record.name, command, {devmode.VARIABLE: devmode.CONSENT})
        command = ["enclave", "serve", "--image", str(cast.image), "--hub", stage.hub_url, "--name", "enclave"]
        command += ["--token-file", str(stage.token_file), "--platform-directory", str(cast.platform)]
        command += ["--attest-with", f"{SERVICE}={service.url}", "--attest-key-file", str(api_key)]
        command += ["--claim-seconds", "2"]
        stage.start("enclave", command)
        yield made
        client.close()


def test_the_passport_carries_what_the_service_said(world: TokenWorld) -> None:
    world.service.answer = honest
    demanding = world.contracts[0]
    opened = world.result(demanding, world.ask(demanding))
    names = {check.name for verdict in opened.verified.verdicts for check in verdict.checks}
    assert {f"token.{SERVICE}.report-data", f"token.{SERVICE}.measurement.mrenclave"} <= names
    assert world.service.asked[-1][1]["x-api-key"] == "the operator's key"
    assert verify_result(opened.file, verifiers=with_software).verdicts == opened.verified.verdicts
    # Years later the token and the key set are still in the file, and are judged again.
    assert not opened.verified.passport.protected_by_hardware


def test_nobody_is_asked_where_no_contract_demands_it(world: TokenWorld) -> None:
    before, plain = len(world.service.asked), world.contracts[1]
    opened = world.result(plain, world.ask(plain))
    assert len(world.service.asked) == before
    assert not any(c.name.startswith("token.") for verdict in opened.verified.verdicts for c in verdict.checks)


def _stranger(body: dict[str, Any]) -> bytes:
    header = {"alg": "PS384", "typ": "JWT", "kid": vendor.KID, "jku": "https://keys.example.org"}
    data = vendor.compact(json.dumps(header).encode(), json.dumps(claims(body)).encode(), vendor.rsa(True, 9))
    return answer(data)


def _altered(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda body: answer(vendor.make(SERVICE, claims(body, **changes)).token)


def _header(**members: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda body: answer(vendor.make(SERVICE, claims(body), **members).token)


LIES: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
    "somebody else's key, at an address of his": (_stranger, "x509.signature"),
    "another session": (_altered(sgx_report_data="00" * 64), f"token.{SERVICE}.report-data"),
    "alg none": (_header(alg="none"), "evidence.malformed"),
    "another issuer": (_altered(iss="https://attest.example.org"), "token.issuer"),
    "expired": (lambda body: _altered(iat=now() - 900, nbf=now() - 900, exp=now() - 1)(body), "token.time"),
    "another machine": (_altered(sgx_mrenclave="00" * 32), f"token.{SERVICE}.measurement.mrenclave"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if i > 1 else ()) for i, name in enumerate(LIES)]
)
def test_each_lie_is_in_the_brokers_logs(world: TokenWorld, name: str) -> None:
    world.service.answer, expected = LIES[name]
    demanding = world.contracts[0]
    run = world.ask(demanding)
    with pytest.raises(RunDenied) as caught:
        world.result(demanding, run)
    said = [d for d in world.decisions(run, refused=True) if d["outcome"] == "no"]
    assert said
    for decision in said:
        failed = {check["name"] for check in decision["checks"] if check["outcome"] == "failed"}
        assert expected in {decision["code"], *failed}
    assert caught.value.denial.code in {decision["code"] for decision in said}


def test_a_silent_service(world: TokenWorld) -> None:
    """The enclave says so and tries again; nobody's key goes anywhere until the service speaks."""
    world.service.answer = lambda body: b"try later"
    demanding, told = world.contracts[0], len(world.stage.log("enclave"))
    run = world.ask(demanding)
    deadline = time.monotonic() + 60
    while "evidence.token" not in world.stage.log("enclave")[told:]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for home in world.cast.hospitals:
        ledger = Ledger(home.path / "ledger.sqlite")
        assert not [d for d in ledger.decisions() if d["run"] == run and d["step"] == "grant"]
        ledger.close()
    world.service.answer = honest
    assert world.result(demanding, run).verified.verdicts


def test_a_service_that_stays_silent_ends_the_run_with_a_reason(world: TokenWorld) -> None:
    """After a few attempts the analyst hears which word was missing, and ``kakoi result status`` says it again."""
    world.service.answer = lambda body: b"try later"
    demanding = world.contracts[0]
    run, agreement = world.ask(demanding), load_agreement(world.client, demanding)
    with pytest.raises(Refused) as caught:
        await_run(
            world.client,
            agreement,
            run,
            clock=SystemClock(),
            seconds=300,
            tell=lambda kind, who: None,
        )
    assert caught.value.code == "session.token-silent"
    assert world.client.run(run).attempt == SILENT_ATTEMPTS
    for home in world.cast.hospitals:
        ledger = Ledger(home.path / "ledger.sqlite")
        assert not [d for d in ledger.decisions() if d["run"] == run and (d["step"], d["outcome"]) == ("grant", "yes")]
        ledger.close()
    researcher = world.cast.researcher.path
    arguments = ["result", "status", run, demanding, "--party", str(researcher), "--hub", world.stage.hub_url]
    told = subprocess.run(
        [sys.executable, "-m", "kakoi.cli", *arguments, "--key-file", str(researcher / "key")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "KAKOI_LANG": "en"},
    )
    assert told.returncode == Refused.exit_code
    assert "session.token-silent" in told.stderr
    world.service.answer = honest
    assert world.result(demanding, world.ask(demanding)).verified.verdicts
