"""The example notebook is executed, cell by cell, against a real deployment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from kakoi.attest.software.admit import with_software
from kakoi.sdk.verify import verify_result
from support.deployment import Deployment, on_deployment
from support.tree import ROOT

NOTEBOOK = ROOT / "examples/notebook/quickstart.ipynb"
MOST_SECONDS = 100


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", NOTEBOOK.with_name("make.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_notebook_is_what_its_script_writes() -> None:
    assert NOTEBOOK.read_text("utf-8") == maker().text(), "run: python examples/notebook/make.py"


def test_notebook_holds_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 10
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@on_deployment
@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the kernel's own libraries warn about one another
def test_every_cell_runs(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.enclave(running=True)
    (deployment.stage.directory / "contract").write_text(deployment.cast.contract)
    monkeypatch.setenv("KAKOI_DEMO", str(deployment.stage.directory))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=MOST_SECONDS, resources={"metadata": {"path": str(tmp_path)}})
    done = client.execute()
    shown = outputs(done)
    assert "has not approved" in shown, "the proposed contract is not in force before everybody signed"
    assert "refused here" in shown
    assert "NOT PROTECTED BY HARDWARE" in shown
    assert "394" not in shown.split("held_back")[0]
    assert any("image/png" in data for data in rich_outputs(done)), "the plot was drawn"
    assert any("text/html" in data and "held_back" in data["text/html"] for data in rich_outputs(done))
    result = verify_result((tmp_path / "mean_days.kakoi").read_bytes(), verifiers=with_software)
    assert result.agreement.contract.version == 2
    assert result.request.parameters[0].value == 60


def rich_outputs(notebook: Any) -> list[dict[str, str]]:
    """Data of all displayed outputs, by media type."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [output.data for cell in cells for output in cell.outputs if "data" in output]


def outputs(notebook: Any) -> str:
    """All text that the notebook shows."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    printed = [output.text for cell in cells for output in cell.outputs if output.output_type == "stream"]
    return "\n".join([*printed, *(data.get("text/plain", "") for data in rich_outputs(notebook))])
