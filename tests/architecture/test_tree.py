"""The repository as its reader gets it: locks that agree, formats and decisions that are described, nothing private."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

from support.tree import ROOT, SRC, parsed, relative, sources, tracked

LOCKS = {
    "run": ROOT / "requirements/run.lock",
    "dev": ROOT / "requirements/dev.lock",
    "owner": ROOT / "requirements/owner.lock",
    "enclave": SRC / "enclave/enclave.lock",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ \\;]+)(?: ; [^\\]*)? \\$", re.MULTILINE | re.IGNORECASE)
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}", re.MULTILINE)


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement.strip(), maxsplit=1)[0]).lower()


def _pins(lock: str) -> dict[str, str]:
    return {_name(name): version for name, version in PIN.findall(LOCKS[lock].read_text())}


def _wanted(file: str) -> set[str]:
    """Names in a requirements/*.in file, and in the files it includes."""
    names: set[str] = set()
    for line in (ROOT / "requirements" / file).read_text().splitlines():
        if line.startswith("-r "):
            names |= _wanted(line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            names.add(_name(line))
    return names


def _extra(name: str) -> set[str]:
    return {_name(entry) for entry in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"][name])}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_nothing_but_pins_is_there(lock: str) -> None:
    text = LOCKS[lock].read_text()
    entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(entries) == len(_pins(lock)) > 5
    assert all(entry.endswith("\\") for entry in entries)
    assert len(HASH.findall(text)) >= len(entries)


@pytest.mark.parametrize("lock", ["run", "owner", "enclave"])
def test_every_lock_names_the_versions_that_are_tested(lock: str) -> None:
    assert _pins(lock).items() <= _pins("dev").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_what_is_asked_for(lock: str) -> None:
    assert _wanted(f"{lock}.in") <= set(_pins(lock))


def test_a_hospital_installs_neither_the_hub_nor_an_engine() -> None:
    foreign = {
        "fastapi",
        "starlette",
        "uvicorn",
        "sqlalchemy",
        "obstore",
        "duckdb",
        "scikit-learn",
        "lifelines",
        "statsmodels",
    }
    assert not foreign & set(_pins("owner"))


def test_the_enclave_installs_neither_a_verifier_nor_a_web_framework() -> None:
    assert not {"fastapi", "starlette", "httpx", "dcap-qvl", "pyjwt", "sqlalchemy", "typer"} & set(_pins("enclave"))


def test_extras_and_locks_say_the_same() -> None:
    assert _extra("owner") == _wanted("owner.in")
    assert _extra("enclave") == _wanted("enclave.in")
    assert _extra("hub") | _extra("analyst") | _extra("enclave") | _extra("owner") <= _wanted("run.in") | {"setuptools"}


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("kakoi", include_external_packages=True, cache_dir=None)


def _third_party(room: str) -> list[set[str]]:
    """What a room imports, by itself or through what it imports: for each package the distributions that have it (namespaces have several)."""
    graph = _graph()
    ours = {m for m in graph.modules if m == f"kakoi.{room}" or m.startswith(f"kakoi.{room}.")}
    reached = ours.union(*(graph.find_upstream_modules(module) for module in ours))
    roots = {module.split(".")[0] for module in reached} - {"kakoi"}
    known = packages_distributions()
    return [{_name(distribution) for distribution in known[root]} for root in sorted(roots) if root in known]


@pytest.mark.parametrize(
    ("room", "locks"), [("broker", ["owner"]), ("party", ["owner"]), ("enclave", ["enclave"]), ("hub", ["run"])]
)
def test_rooms_import_only_what_their_people_install(room: str, locks: list[str]) -> None:
    allowed = set().union(*(_pins(lock) for lock in locks))
    assert [names for names in _third_party(room) if not names & allowed] == []


# Formats and decisions ---------------------------------------------------------------------------------------------


def _kinds() -> dict[str, str]:
    found = {}
    for path in sources():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "KIND" and node.value is not None:
                found[str(ast.literal_eval(node.value))] = relative(path)
    found.pop("", None)
    return found


def test_every_kind_of_object_is_described() -> None:
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs/formats").glob("*.md"))
    assert len(_kinds()) > 15
    missing = {kind: place for kind, place in _kinds().items() if f"`{kind}`" not in pages}
    assert not missing


def test_pages_that_the_source_points_to_exist() -> None:
    missing = set()
    for path in sources():
        for name in re.findall(r"docs/(?:[a-z]+/)[A-Za-z0-9_-]+\.md", path.read_text("utf-8")):
            if not (ROOT / name).exists():
                missing.add(f"{relative(path)} -> {name}")
    assert not missing


def test_decisions_are_numbered_and_say_why() -> None:
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    numbers = [path.name[:4] for path in pages]
    assert len(numbers) == len(set(numbers)) > 10
    for path in pages:
        text = path.read_text("utf-8")
        assert text.startswith(f"# {path.name[:4]}. "), path.name
        for part in ("Context", "Options", "Decision", "Consequences"):
            assert re.search(rf"^(\*\*{part}|## {part})", text, re.MULTILINE), f"{path.name}: {part}"
        assert text.count("\n") <= 80, f"{path.name}: one page"


def _links(path: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    return [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link and link[0] != "#"]


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{relative(page)} -> {link}"
        for page in tracked()
        if page.suffix == ".md"
        for link in _links(page)
        if link and not (page.parent / link).exists()
    ]
    assert not broken


# Nothing of the place where it was written -----------------------------------------------------------------------------

PRIVATE = re.compile(
    "|".join(
        [
            r"/work/",
            r"/root/",
            r"/home/[a-z]+/",
            r"/tmp/[a-z]+\.(?:sh|md)",
            r"\bpypi\.org",
            r"pythonhosted\.org",
            r"deb\.debian\.org",
            r"registry\.npmjs\.org",
            r"proxy\.golang\.org",
            r"index-url\s*=",
            r"\b[Ss]ession \d+\b",
            r"\b(?:helper|sub-?agent)s? \d+\b",
            r"\b[Cc]laude\b",
            r"\b[Aa]nthropic\b",
            r"\bChatGPT\b",
            r"\bLLM\b",
            r"\bAI assistant\b",
            r"\blanguage model\b",
        ]
    )
)
ATTACKED = {"/root/", "/work/"}
"""Paths that attacks of tests/attacks try to reach."""
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".sh",
    ".in",
    ".lock",
    ".json",
    ".txt",
    ".html",
    ".yml",
    ".yaml",
    ".ipynb",
    ".cfg",
    ".sql",
    "",
}


def test_nothing_private_is_in_the_tree() -> None:
    found = []
    for path in tracked():
        if path.suffix not in TEXT or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
            match = PRIVATE.search(line)
            if match and not (match.group() in ATTACKED and "tests/attacks" in relative(path)):
                found.append(f"{relative(path)}:{number} {match.group()}")
    assert not found


def test_no_large_or_real_data_is_in_the_tree() -> None:
    large = [relative(path) for path in tracked() if path.stat().st_size > 1_500_000]
    assert not large


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "THREAT_MODEL.md", "LIMITATIONS.md"],
)
def test_the_papers_of_day_one_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500


def test_the_licence_is_the_one_that_the_project_names() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_every_room_is_in_the_picture() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    rooms = {path.parent.name for path in SRC.glob("*/__init__.py")}
    assert not {room for room in rooms if f"`{room}`" not in page}
