"""T100: whoever previews a contract runs code that nobody has approved. It must reach nothing of that machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakoi.contract.model import Output, OutputColumn
from kakoi.core.errors import Refused
from kakoi.enclave.sandbox import layers
from kakoi.rehearse.run import rehearse
from support.clinic import shared_engine
from unit.rehearse.test_rehearse import PYTHON, preview, with_source

MODEL = Output(
    name="model", shape="statistics", columns=(OutputColumn(name="mean", role="value"),), parameters=1, max_rows=1
)
TRIES = {
    "read a file": 'open("/etc/passwd").read()',
    "write a file": 'open("{place}", "w").write("here")',
    "start a program": 'import os; os.system("touch {place}")',
    "reach the network": 'import socket; socket.create_connection(("127.0.0.1", 9), 1)',
}


@pytest.mark.parametrize("name", TRIES)
def test_the_code_of_a_rehearsed_analysis_reaches_nothing(name: str, tmp_path: Path) -> None:
    """Each try is made; the analysis goes on only if it succeeds."""
    place = tmp_path / "escaped"
    statement = TRIES[name].replace("{place}", str(place))
    source = PYTHON.replace(
        "    ages =", f"    assert not ({statement.partition('; ')[2] or statement})\n    ages =", 1
    )
    if "; " in statement:
        source = statement.partition("; ")[0] + "\n" + source
    (item,) = preview(with_source("python", source, MODEL), sizes=(30,)).analyses
    assert not place.exists()
    if name != "start a program":
        assert item.rehearsals[0].refused is not None
        assert item.rehearsals[0].refused.code == "python.failed"


def test_a_machine_without_a_wall_rehearses_only_if_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tuple(
        layers.Layer(name=wall.name, missing="taken away", worth=wall.worth) if wall.name == layers.SECCOMP else wall
        for wall in layers.layers()
    )
    monkeypatch.setattr(layers, "layers", lambda: broken)
    terms = with_source("python", PYTHON, MODEL)
    with pytest.raises(Refused) as caught:
        rehearse(terms, party=terms.contract.drafter, now=0, engine=shared_engine(), sizes=(30,))
    assert caught.value.code == "sandbox.layer-missing"
