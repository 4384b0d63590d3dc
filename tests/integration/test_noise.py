"""Differential privacy from the owners' rules to a passport: through hub, brokers and enclave, over a published trial."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.attest.software.admit import with_software
from kakoi.cli.demo import cast as demo_cast
from kakoi.core.errors import Refused
from kakoi.sdk.draft import DATASHIELD_RULES
from kakoi.sdk.released import frame, released
from kakoi.sdk.verify import verify_result
from kakoi.wire.released import ReleasedTable
from support.clinic import SHARED, needs_shared
from support.command_line import runner
from support.deployment import Deployment, Finished, deployed

pytestmark = [pytest.mark.slow, needs_shared]
RULES = replace(DATASHIELD_RULES, epsilon_per_run="2", epsilon_budget="4")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Three hospitals that all demand noise, and analyses in SQL only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_cast, "DATASHIELD_RULES", RULES)
        patch.setattr(demo_cast, "ANALYSES", ("counts", "oldest"))
        with deployed(tmp_path_factory.mktemp("noise")) as made:
            made.enclave(running=True)
            yield made


def table(finished: Finished) -> ReleasedTable:
    (output,) = released(finished.opened.verified).outputs
    assert isinstance(output, ReleasedTable)
    return output


def test_published_counts_come_out_within_their_intervals_and_the_passport_names_the_noise(
    room: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAKOI_LANG", "en")
    finished = room.finish(room.ask())
    with (SHARED / "data/survival/lung.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ecog = next(name for name in rows[0] if "ecog" in name)
    patients = Counter((row["sex"], row[ecog] if row[ecog] not in ("", "NA") else None) for row in rows)
    deaths = Counter(
        (row["sex"], row[ecog] if row[ecog] not in ("", "NA") else None) for row in rows if row["status"] == "2"
    )
    assert sum(patients.values()) == 228

    output = table(finished)
    assert len(output.columns[0].cells) == 2 * 5, "also cells in which nobody is"
    labels = list(zip(output.columns[0].cells, output.columns[1].cells, strict=True))
    inside = []
    for noise, truth in zip(output.noise[:2], (patients, deaths), strict=True):
        for (sex, score), low, high in zip(labels, noise.low, noise.high, strict=True):
            inside.append(float(low or "nan") <= truth[str(sex), score] <= float(high or "nan"))
    assert len(inside) == 20
    assert sum(inside) >= 17, "19 of 20 on average"
    made = frame(output)
    assert (made["patients_low"] <= made["patients"]).all()
    assert made.attrs["noise"]["median_days"]["off_by"] == "rows"
    assert not made["held_back"].any(), "small cells are shown, and mean little"

    verified = verify_result(finished.opened.file, verifiers=with_software)
    assert any("at most ε = 2" in str(said) for said in verified.proven)
    gate = [(d.action, d.rule) for d in verified.passport.gate]
    assert ("noised", "differential-privacy epsilon=2 rows-per-person=1") in gate
    assert ("noised", "discrete-laplace epsilon=2/3") in gate
    assert ("noised", "exponential epsilon=2/3") in gate
    assert not any(action == "suppressed-cells" for action, _ in gate)

    run = runner(capsys)
    kept = tmp_path / "again.kakoi"
    analyst = room.cast.researcher
    party = ("--party", analyst.path, "--key-file", analyst.path / "key", "--hub", room.stage.hub_url)
    opened = run("result", "open", finished.run, room.cast.contract, *party, "--out", kept)
    assert opened.code == 0, opened.err
    said = opened.out.replace("\n", " ")
    assert "noise of ε = 2/3, at most ±5" in said
    assert "counts can be negative" in said


def test_the_same_question_is_answered_alike_and_costs_once_and_a_third_one_is_refused(
    room: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAKOI_LANG", "en")
    first, again = room.finish(room.ask()), room.finish(room.ask())
    assert table(first) == table(again)
    assert first.run != again.run
    old = room.finish(room.ask("oldest", minimum_age=60))
    assert table(old).noise
    with pytest.raises(Refused) as caught:
        room.finish(room.ask("oldest", minimum_age=61))
    assert caught.value.code == "ledger.epsilon"
    assert "epsilon_budget" in caught.value.message
    assert table(room.finish(room.ask("oldest", minimum_age=60))) == table(old), "asked before: it costs nothing"

    run = runner(capsys)
    shown = run("broker", "ledger", "--party", room.brokers["north"].path)
    assert shown.code == 0, shown.err
    assert "told at most ε = 4 about one person" in shown.out.replace("\n", " ")
    analyst = room.cast.researcher
    party = ("--party", analyst.path, "--key-file", analyst.path / "key", "--hub", room.stage.hub_url)
    preview = run("contract", "preview", room.cast.contract, *party, "--analysis", "counts", "--people", "300")
    assert preview.code == 0, preview.err
    assert "noise of ε = 2/3, at most ±5" in preview.out.replace("\n", " ")
