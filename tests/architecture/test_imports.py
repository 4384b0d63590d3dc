"""The import rules hold, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.tree import PURE_MODULES, PURE_ROOMS, ROOT, SRC

CONTRACTS = {
    entry["id"]: entry
    for entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

# contract id, file, forbidden line. At least one case of each contract; a file that does not exist yet is made.
FORBIDDEN = [
    ("layers", "core/ids.py", "from kakoi.attest import report"),
    ("layers", "contract/model.py", "from kakoi.wire import messages"),
    ("layers", "hub/forbidden.py", "from kakoi.broker import decide"),
    ("layers", "broker/decide.py", "from kakoi.sdk import draft"),
    ("layers", "dataset/format.py", "from kakoi.tlog import merkle"),
    ("layers", "enclave/forbidden.py", "from kakoi.testing import x509_kit"),
    ("pure", "attest/policy.py", "import time"),
    ("pure", "tlog/proof.py", "from pathlib import Path"),
    ("pure", "core/crypto.py", "import secrets"),
    ("pure", "wire/messages.py", "import urllib.request"),
    ("pure", "contract/model.py", "import logging"),
    ("pure", "dataset/seal.py", "import os"),
    ("pure", "dataset/open.py", "import pyarrow.parquet"),
    ("pure", "broker/decide.py", "import socket"),
    ("pure", "core/records.py", "import importlib"),
    ("one-crypto", "dataset/seal.py", "from cryptography.hazmat.primitives.ciphers.aead import AESGCM"),
    ("one-crypto", "broker/service.py", "from cryptography import x509"),
    ("one-crypto", "enclave/forbidden.py", "import cryptography"),
    ("tcb", "broker/decide.py", "from kakoi.party import home"),
    ("tcb", "enclave/keeper/session.py", "import kakoi.hub"),
    ("tcb", "evidence/software.py", "import kakoi.testing"),
    ("keeper", "enclave/keeper/session.py", "import kakoi.enclave.engines"),
    ("keeper", "enclave/keeper/session.py", "import duckdb"),
    ("keeper", "core/ids.py", "import pandas"),
    ("enclave-no-verifier", "enclave/keeper/session.py", "from kakoi.attest import registry"),
    ("enclave-no-verifier", "evidence/software.py", "import dcap_qvl"),
    ("enclave-no-verifier", "wire/messages.py", "from kakoi.attest.snp import verify"),
    ("verifiers", "attest/sgx/verify.py", "from kakoi.attest.tdx import verify as other"),
    ("verifiers", "attest/policy.py", "from kakoi.attest import appraise"),
    ("verifiers", "attest/registry.py", "import kakoi.attest.software"),
    ("software-users", "broker/service.py", "import kakoi.attest.software"),
    ("software-reach", "broker/service.py", "from kakoi.broker import devmode"),
    ("software-reach", "hub/forbidden.py", "from kakoi.attest.software import verify"),
    ("evidence-users", "broker/service.py", "import kakoi.evidence"),
    ("evidence-users", "sdk/draft.py", "from kakoi.evidence import software"),
    ("testing-users", "cli/doctor.py", "from kakoi.testing import x509_kit"),
    ("siblings", "core/ids.py", "from kakoi.core import dsse"),
]


def lint(root: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    chosen = [argument for name in contracts for argument in ("--contract", name)]
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache", *chosen],
        cwd=root,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(root / "src"), "NO_COLOR": "1", "COLUMNS": "300"},
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(SRC, tmp_path / "src" / "kakoi", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_rules_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("contract", "module", "line"), FORBIDDEN, ids=lambda value: str(value).replace(" ", "-"))
def test_each_rule_can_fail(copy: Path, contract: str, module: str, line: str) -> None:
    file = copy / "src" / "kakoi" / module
    file.write_text(line + "\n" + (file.read_text() if file.exists() else ""))
    done = lint(copy, contract)
    broken = [text.partition(" BROKEN")[0] for text in done.stdout.splitlines() if " BROKEN" in text]
    assert done.returncode == 1, done.stdout + done.stderr
    assert broken == [CONTRACTS[contract]["name"]]


def test_every_rule_has_a_case() -> None:
    assert {contract for contract, _, _ in FORBIDDEN} == set(CONTRACTS)


@pytest.mark.parametrize("where", ["newroom", "attest/newtee"])
def test_a_new_room_or_verifier_must_be_placed(copy: Path, where: str) -> None:
    folder = copy / "src" / "kakoi" / where
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    done = lint(copy)
    assert done.returncode == 1
    assert folder.name in done.stdout + done.stderr


def test_the_pure_rooms_are_the_ones_these_tests_know() -> None:
    modules = [name.removesuffix(".py").replace("/", ".") for name in (*PURE_ROOMS, *PURE_MODULES)]
    assert set(CONTRACTS["pure"]["source_modules"]) == {f"kakoi.{name}" for name in modules}


def test_untrusted_rooms_are_kept_from_the_trusted_ones_as_soon_as_they_exist() -> None:
    untrusted = {"hub", "sdk", "cli", "guard", "console", "testing", "party", "rehearse"}
    existing = {f"kakoi.{room}" for room in untrusted if (SRC / room / "__init__.py").exists()}
    assert existing <= set(CONTRACTS["tcb"]["forbidden_modules"])
    trusted = {f"kakoi.{room}" for room in ("enclave", "evidence", "mpc") if (SRC / room / "__init__.py").exists()}
    assert trusted <= set(CONTRACTS["tcb"]["source_modules"])
