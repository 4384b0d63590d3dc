"""Bills of materials: valid CycloneDX, the same for the same content, and tied to a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from kakoi.core.errors import KakoiError, Malformed, Misuse
from kakoi.enclave import image
from kakoi.guard.weakness import bill as bills
from kakoi.guard.weakness import sbom
from support.command_line import runner
from support.tree import ROOT

LOCK = ROOT / "src/kakoi/enclave/enclave.lock"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image"
    image.build(path)
    return path


def test_an_images_bill_names_every_file_and_package_and_its_measurement(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner(capsys)
    files = [tmp_path / name for name in ("one.json", "two.json")]
    for file in files:
        assert run("sbom", "--image", built, "--out", file).code == 0
    data = files[0].read_bytes()
    assert data == files[1].read_bytes()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    bill = bills.read(data)
    assert bill.measurement == image.measure(built).hex()
    assert {(p.name, p.version) for p in bill.packages} == {
        (p.name, p.version) for p in sbom.of_lock(LOCK.read_text("utf-8"))
    }
    components = json.loads(data)["components"]
    listed = {item["name"] for item in components if item["type"] == "file"}
    assert listed == {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}


def test_another_byte_is_another_bill(built: Path) -> None:
    packages = sbom.of_lock(LOCK.read_text("utf-8"))
    one = sbom.bill("enclave", packages, files={"a.py": bytes(32)}, measurement="00")
    other = sbom.bill("enclave", packages, files={"a.py": bytes(31) + b"\1"}, measurement="00")
    assert json.loads(one)["serialNumber"] != json.loads(other)["serialNumber"]


@pytest.mark.parametrize("component", ["owner", "hub", "enclave"])
def test_a_component_as_it_is_installed_here(component: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = runner(capsys)("sbom", component)
    assert done.code == 0, done.err
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.out) is None
    names = {package.name for package in bills.read(done.out.encode()).packages}
    assert "cryptography" in names
    assert ("sqlalchemy" in names) == (component == "hub")
    assert ("duckdb" in names) == (component == "enclave")


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runner(capsys)
    assert run("sbom").error == "sbom.what"
    assert run("sbom", "broker").error == "sbom.component"
    with pytest.raises(Malformed, match="hash"):
        sbom.of_lock("cryptography==50.0.2\n")
    with pytest.raises(Malformed):
        sbom.of_lock("# nothing\n")
    for data in (b"", b"{}", b'{"bomFormat": "CycloneDX"}', b"[]"):
        with pytest.raises(KakoiError, match="CycloneDX"):
            bills.read(data)
    with pytest.raises(Misuse):
        bills.read_file(tmp_path / "none.json")
