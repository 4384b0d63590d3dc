"""What each trusted program really loads, in a fresh isolated interpreter.

The linter reads import statements; this sees dynamic imports, package ``__init__`` files that run implicitly, and
what third-party packages bring along.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache

import pytest

from support.tree import PURE_ROOMS, ROOT, SRC, parsed, relative, sources

CRYPTOGRAPHY = frozenset({"cryptography", "_cffi_backend", "_openssl"})
INTERPRETER = frozenset({"__main__", "_distutils_hack", "sitecustomize", "apport_python_hook"})
"""What an interpreter may load by itself: Debian and Ubuntu ship hooks of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A trusted program, and all that may be in its process after import."""

    module: str
    rooms: frozenset[str]
    third_party: frozenset[str]
    most_lines: int
    """Lines of ours that it loads. The number rises only in a commit that says why."""


PROGRAMS = [
    Program(
        module="kakoi.broker.decide",
        rooms=frozenset({"core", "attest", "dataset", "contract", "wire", "broker"}),
        third_party=CRYPTOGRAPHY,
        most_lines=4900,  # with sealed code, lists of opt-outs, budgets of releases, the messages in which results are let go, and what noise costs
    ),
    Program(
        module="kakoi.enclave.keeper.__main__",
        rooms=frozenset({"core", "attest", "dataset", "tlog", "contract", "wire", "evidence", "net", "enclave"}),
        third_party=CRYPTOGRAPHY,
        most_lines=15100,  # with the clients of three attestation services, for contracts that demand their tokens,
        # and sealed code: its manifest and reviews are part of what makes a contract binding, lists of opt-outs, exact noise,
        # and dominance, intervals, tied tables and rounding (docs/adr/0106)
    ),
]
FORBIDDEN_ANYWHERE = {"importlib.metadata", "pdb", "pydoc", "ftplib", "smtplib", "xmlrpc", "tkinter"}


@cache
def loaded(module: str) -> tuple[str, ...]:
    """Names in ``sys.modules`` after importing ``module`` and nothing else."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2]);"
        "print(json.dumps(sorted(n for n, m in sys.modules.items() if m is not None)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code, str(ROOT / "src"), module],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def exists(module: str) -> bool:
    return (SRC.parent / (module.replace(".", "/") + ".py")).exists()


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.module)
def program(request: pytest.FixtureRequest) -> Program:
    chosen: Program = request.param
    if not exists(chosen.module):
        pytest.skip(f"{chosen.module} does not exist yet")
    return chosen


def test_only_the_named_rooms_are_loaded(program: Program) -> None:
    ours = {name.split(".")[1] for name in loaded(program.module) if name.startswith("kakoi.")}
    assert ours <= program.rooms


def test_only_the_named_packages_are_loaded(program: Program) -> None:
    roots = {name.split(".")[0] for name in loaded(program.module)} - set(sys.stdlib_module_names) - {"kakoi"}
    assert roots - INTERPRETER <= program.third_party


def test_no_verifier_and_no_engine_is_loaded_where_none_belongs(program: Program) -> None:
    names = set(loaded(program.module))
    verifiers = {n for n in names if n.startswith("kakoi.attest.") and n.split(".")[2] not in ("policy", "report")}
    assert not verifiers
    assert not {n for n in names if n.startswith("kakoi.enclave.engines")}
    assert not names & FORBIDDEN_ANYWHERE


def test_the_trusted_base_stays_small(program: Program) -> None:
    files = [importlib.util.find_spec(name) for name in loaded(program.module) if name.startswith("kakoi")]
    total = 0
    for spec in files:
        assert spec is not None
        assert spec.origin is not None
        with open(spec.origin, encoding="utf-8") as source:
            total += sum(1 for _ in source)
    assert total <= program.most_lines


def test_packages_of_trusted_rooms_run_no_code() -> None:
    """A package's ``__init__`` runs whenever one of its modules is imported, so it holds a docstring and nothing else."""
    for room in (*PURE_ROOMS, "evidence", "enclave", "broker"):
        for path in sources(room):
            if path.name == "__init__.py":
                body = parsed(path).body
                assert len(body) == 1, relative(path)
                assert isinstance(body[0], ast.Expr), relative(path)
                assert isinstance(body[0].value, ast.Constant), relative(path)


IMPORT_EACH_FIRST = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    for loaded in [n for n in sys.modules if n.split(".")[0] == "kakoi"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception as error:
        print(name, repr(error))
"""


def test_every_module_can_be_imported_first() -> None:
    """No module works only after another one was imported: circular imports hide there."""
    names = [path.relative_to(SRC.parent).with_suffix("").as_posix().replace("/", ".") for path in sources(*PURE_ROOMS)]
    command = [sys.executable, "-I", "-B", "-c", IMPORT_EACH_FIRST, str(ROOT / "src")]
    done = subprocess.run(
        [*command, *(name.removesuffix(".__init__") for name in names)], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
