"""Writes quickstart.ipynb, without outputs, so that a change of it is a change of this file: ``python examples/notebook/make.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CELLS: Final = (
    """# Kakoi from a notebook

Run `kakoi demo --keep-open` first; it leaves a hub, three hospitals' brokers and an enclave running, and everything in `demo-out`.

**NOT PROTECTED BY HARDWARE.** The demo uses the `software` platform, which protects nothing. Everything else is real: keys, signatures, checks, refusals.
""",
    """import os
import subprocess
import sys
from pathlib import Path

from kakoi.contract.model import Output, OutputColumn, Parameter
from kakoi.sdk.room import Room
from kakoi.sdk.run import RunDenied

demo = Path(os.environ.get("KAKOI_DEMO", "../../demo-out"))
hub = (demo / "hub" / "address").read_text().strip()
party = demo / "analyst" / "party"
""",
    """## Connect, and open the contract

`Room.connect` unlocks the analyst's keys. `contract` fetches a contract with everything it names and checks every signature *here*; the hub is believed nothing.
""",
    """room = Room.connect(hub, party, key_file=party / "key")
contract = room.contract((demo / "contract").read_text().strip())
contract
""",
    """{table: list(columns) for table, columns in contract.columns.items()}
""",
    """## SQL

A fixed query that all parties read before they signed. Each hospital's broker sees the request, asks the enclave for evidence, judges it, and only then gives its key.
""",
    """counts = contract.run("counts")
counts
""",
    """table = counts["counts"]
table
""",
    """Where `held_back` is true the gate kept a number inside: too few people, or too few left out of it. It is missing here, not zero.
""",
    """table[table["held_back"]]
""",
    """## Python, and a plot

The survival analysis is a Python function in the contract. Its outputs arrive as DataFrames and dictionaries.
""",
    """survival = contract.run("survival")
survival.names
""",
    """survival["cox_age_sex"]
""",
    """import matplotlib.pyplot as plt

curves = survival["curves"]
figure, axes = plt.subplots(figsize=(7, 4))
for ecog, group in curves[~curves["held_back"]].groupby("ph_ecog"):
    known = group.dropna(subset=["survival"])
    axes.step(known["day"], known["survival"], where="post", label=f"ECOG {ecog}")
axes.set(xlabel="days", ylabel="survival", ylim=(0, 1.02))
axes.legend()
figure.text(0.99, 0.01, "" if survival.protected_by_hardware else "NOT PROTECTED BY HARDWARE", ha="right", color="red")
plt.show()
""",
    """## A function of your own

Write it whole: imports inside, nothing from outside, because its source is what the hospitals read and sign. It gets DataFrames, and returns what it declared.
""",
    """def analyse(tables, parameters):
    "Mean days of survival by sex, among those who are old enough."
    import pandas as pd

    lung = tables["lung"].dropna(subset=["age", "time"])
    chosen = lung[lung["age"] >= parameters["minimum_age"]]
    groups = chosen.groupby("sex")["time"]
    told = {"sex": list(groups.groups), "patients": groups.size().to_numpy(), "mean_days": groups.mean().to_numpy()}
    return {"days": pd.DataFrame(told)}


days = Output(
    name="days",
    shape="table",
    columns=(
        OutputColumn(name="sex", role="group"),
        OutputColumn(name="patients", role="count"),
        OutputColumn(name="mean_days", role="value"),
    ),
    parameters=0,
    max_rows=2,
)
identity = room.function(
    analyse,
    name="mean_days",
    title="Mean days of survival by sex, from an age on",
    reads={"lung": ["time", "age", "sex"]},
    outputs=[days],
    parameters=[Parameter(name="minimum_age", type="integer", minimum="18", maximum="90", choices=())],
)
proposed = room.propose(contract, {identity: 5})
""",
    """Nobody has agreed to it yet, so nothing can run under it, and this shows who is missing:
""",
    """try:
    room.contract(proposed)
except Exception as error:
    print(error)
""",
    """Now the hospitals read and sign. On this one machine the notebook plays their parts; in life each does it on its own.
""",
    """def kakoi(*arguments):
    "What a person types in a terminal."
    command = [sys.executable, "-m", "kakoi.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


for owner in ("north", "east", "south", "analyst"):
    home = demo / owner / "party"
    kakoi("contract", "sign", proposed, "--yes", "--hub", hub, "--party", home, "--key-file", home / "key")
print(kakoi("contract", "verify", proposed, "--hub", hub, "--party", home, "--key-file", home / "key"))
""",
    """agreed = room.contract(proposed)
mine = agreed.run("mean_days", minimum_age=60)
mine["days"]
""",
    """A parameter outside the contract does not even leave this machine:
""",
    """try:
    agreed.run("mean_days", minimum_age=5)
except RunDenied as denied:
    print("an owner refused:", denied)
except Exception as error:
    print("refused here:", error)
""",
    """## What is proven

Each result carries a passport. `proof` says in sentences what it proves and what it does not; `save` writes the file that `kakoi verify` checks, offline and by anybody.
""",
    """print(mine.proof)
""",
    """mine.save("mean_days.kakoi")
print(kakoi("verify", "mean_days.kakoi"))
""",
)


def notebook() -> nbformat.NotebookNode:
    """The notebook: text cells begin with a heading or a sentence, code cells with code."""
    cells = []
    for number, source in enumerate(CELLS):
        make = new_code_cell if _is_code(source) else new_markdown_cell
        cells.append(make(source.strip(), id=f"cell-{number:02}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def _is_code(source: str) -> bool:
    try:
        compile(source, "cell", "exec")
    except SyntaxError:
        return False
    return not source.startswith("#")


def text() -> str:
    """The file's text."""
    return str(nbformat.writes(notebook())) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("quickstart.ipynb").write_text(text(), "utf-8")
