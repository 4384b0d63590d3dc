"""What a weakness touches, asked of a running deployment at the command line."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.core import dsse
from kakoi.core.crypto import SIGNING_SECRET, SigningKey
from kakoi.wire.result import ResultFile
from support.command_line import runner
from support.deployment import Deployment, on_deployment

pytestmark = on_deployment


def test_a_party_asks_the_hub_what_a_package_touches(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, home = deployment.honest.run, deployment.cast.hospitals[0]
    run, bill = runner(capsys), tmp_path / "enclave.cdx.json"
    assert run("sbom", "--image", deployment.cast.image, "--out", bill).code == 0
    where = (
        "--hub",
        deployment.stage.hub_url,
        "--party",
        home.path,
        "--key-file",
        home.path / "key",
        "--sbom",
        bill,
        "--json",
    )
    touched = run("exposure", "duckdb>0", *where)
    assert touched.code == 1, touched.err
    found = {item["run"]: item for item in json.loads(touched.out)["touched"]}
    assert {key["owner"] for key in found[run_id]["keys"]} == {h.card.record.name for h in deployment.cast.hospitals}
    assert run("exposure", "duckdb<1", *where).code == 0
    assert json.loads(run("exposure", "software:pce<99", *where).out)["touched"]
    result = tmp_path / "r.kakoi"
    result.write_bytes(deployment.honest.opened.file)
    assert run("exposure", "duckdb<1", "--result", result, "--sbom", bill).code == 0
    assert run("exposure", "duckdb<1", "--result", result).code == 1, "without the bill nothing is excluded"
    assert run("exposure", "duckdb<1").error == "exposure.nothing"
    assert run("exposure", "today", "--result", result).error == "exposure.collateral"


def test_a_passport_that_its_session_did_not_sign_is_no_news(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody invents a run that a weakness touches, or hides one by altering its passport."""
    file = ResultFile.decode(deployment.honest.opened.file)
    forger = SigningKey(secrets.token_bytes(SIGNING_SECRET))
    forged = dsse.sign(file.passport.payload, forger, payload_type=dsse.IN_TOTO_TYPE)
    path = tmp_path / "forged.kakoi"
    path.write_bytes(replace(file, passport=forged).encode())
    assert runner(capsys)("exposure", "duckdb>0", "--result", path).error == "signature.signer"
