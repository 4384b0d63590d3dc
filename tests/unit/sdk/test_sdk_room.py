"""The notebook's side: what is published is what was written, and a contract is opened only whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from kakoi.contract.model import Analysis, Contract, Output, OutputColumn, Parameter
from kakoi.contract.sign import open_signed
from kakoi.core.errors import KakoiError, Refused
from kakoi.core.ids import ObjectId, PartyId, parse_id
from kakoi.net.client import HubClient
from kakoi.sdk.room import Room
from kakoi.testing.memory_hub import MemoryHub
from kakoi.testing.world import NOW
from kakoi.wire.messages import RunRequest
from support.broker_setting import Setting

COUNT = Output(
    name="n",
    shape="table",
    columns=(OutputColumn(name="sex", role="group"), OutputColumn(name="people", role="count")),
    parameters=0,
    max_rows=2,
)


@dataclass
class Notebook:
    """A room of the setting's own party, on a hub in memory."""

    setting: Setting
    room: Room

    def analysis(self, identity: ObjectId) -> Analysis:
        return open_signed(Analysis, self.setting.hub.get_object(identity), self.setting.home.card).record


@pytest.fixture
def notebook(setting: Setting) -> Notebook:
    return Notebook(setting=setting, room=Room(cast(HubClient, setting.hub), setting.home))


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def test_an_sql_analysis_is_published_as_written(notebook: Notebook) -> None:
    age = Parameter(name="minimum_age", type="integer", minimum="18", maximum="80", choices=())
    query = "SELECT sex, count(*) AS people FROM trial WHERE age >= $minimum_age GROUP BY sex"
    identity = notebook.room.sql(
        query, name="n", title="People by sex", reads={"trial": ["age", "sex"]}, output=COUNT, parameters=[age]
    )
    made = notebook.analysis(identity)
    assert (made.engine, made.source, made.author) == ("sql", query, PartyId(notebook.setting.home.card.id))
    assert [(use.table, use.columns) for use in made.reads] == [("trial", ("age", "sex"))]
    assert (made.parameters, made.outputs) == ((age,), (COUNT,))


def publish(notebook: Notebook, function: Callable[[Any, Any], Any]) -> ObjectId:
    return notebook.room.function(function, name="n", title="People", reads={"trial": ["sex"]}, outputs=[COUNT])


def test_a_function_is_published_as_its_source(notebook: Notebook) -> None:
    def analyse(tables: Any, parameters: Any) -> Any:
        frame = tables["trial"].groupby("sex").size().rename("people").reset_index()
        return {"n": frame}

    source = notebook.analysis(publish(notebook, analyse)).source
    assert source.startswith("def analyse(tables: Any"), "the indentation of where it stood is gone"
    compile(source, "analysis", "exec")


def test_functions_that_cannot_be_published(notebook: Notebook) -> None:
    def other(tables: Any, parameters: Any) -> Any:
        return None

    scope: dict[str, Any] = {}
    exec("def analyse(tables, parameters): return None", scope)  # noqa: S102 - a function without a source
    assert code(lambda: publish(notebook, other)) == "sdk.function"
    assert code(lambda: publish(notebook, scope["analyse"])) == "sdk.function"
    assert code(lambda: publish(notebook, lambda tables, parameters: None)) == "sdk.function"


def test_a_contract_is_opened_with_all_its_signatures(notebook: Notebook) -> None:
    agreement = notebook.setting.publish()
    opened = notebook.room.contract(agreement.id)
    assert opened.analyses == {"counts": "People by sex"}
    assert opened.columns == {"trial": ("age", "sex", "days")}
    assert "A trial in three hospitals" in opened._repr_html_()
    assert code(lambda: opened.run("nothing")) == "run.analysis"


def test_a_contract_that_somebody_has_not_signed_does_not_open(notebook: Notebook) -> None:
    notebook.setting.world.silent = ("East",)
    with pytest.raises(Refused) as caught:
        notebook.setting.publish()
    assert caught.value.code == "contract.approval-missing"
    contract = notebook.setting.hub.of_kind(Contract.KIND)[0].payload_id
    assert code(lambda: notebook.room.contract(contract)) == "contract.approval-missing"
    assert code(lambda: notebook.room.contract("0" * 64)) == "hub.not-found"
    assert code(lambda: notebook.room.contract("short")) == "encoding.id"


def test_titles_are_text_in_a_page(notebook: Notebook) -> None:
    from kakoi.testing.world import with_changes

    notebook.setting.world.change_contract = lambda contract: with_changes(contract, title="<script>x</script>")
    html = notebook.room.contract(notebook.setting.publish().id)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_proposal_is_the_next_version_and_nobodys_yet(notebook: Notebook) -> None:
    agreement = notebook.setting.publish()
    opened = notebook.room.contract(agreement.id)
    identity = notebook.room.sql("SELECT 1", name="more", title="More", reads={"trial": ["sex"]}, output=COUNT)
    proposed = notebook.room.propose(opened, {identity: 3})
    record = Contract.decode(notebook.setting.hub.get_object(parse_id(proposed)).payload)
    before = agreement.contract
    assert (record.version, record.supersedes) == (before.version + 1, agreement.id)
    assert record.drafter == PartyId(notebook.setting.home.card.id)
    assert [(item.analysis, item.max_runs) for item in record.analyses[-1:]] == [(identity, 3)]
    assert record.analyses[:-1] == before.analyses
    assert (record.data, record.platforms, record.limits) == (before.data, before.platforms, before.limits)
    assert code(lambda: notebook.room.contract(proposed)) == "contract.approval-missing"


def test_requests_outside_the_contract_do_not_leave(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values beyond the limits, parameters too many or too few, a contract that has ended: refused before anything is sent."""
    opened = notebook.room.contract(notebook.setting.publish().id)
    for moment, values, expected in (
        (NOW, {"minimum_age": 500}, "request.parameter-range"),
        (NOW, {"minimum_age": "40"}, "request.parameter-range"),
        (NOW, {}, "request.parameters"),
        (NOW, {"minimum_age": 40, "more": 1}, "request.parameters"),
        (NOW + 10**7, {"minimum_age": 40}, "contract.expired"),
        (NOW - 10**7, {"minimum_age": 40}, "contract.not-yet"),
    ):
        monkeypatch.setattr("kakoi.sdk.room.time.time", lambda moment=moment: moment)
        assert code(lambda values=values: opened.run("counts", **cast(dict[str, Any], values))) == expected  # type: ignore[misc]
    assert notebook.setting.hub.of_kind(RunRequest.KIND) == []


def test_connecting_with_a_wrong_key_sends_nothing(setting: Setting, tmp_path: Path) -> None:
    assert MemoryHub().objects == []
    assert code(lambda: Room.connect("http://127.0.0.1:1", setting.path, passphrase="x")) == "key.unlock"
    assert code(lambda: Room.connect("http://127.0.0.1:1", tmp_path / "none", passphrase="x")) == "party.missing"
    assert code(lambda: Room.connect("nonsense", setting.path, key_file=tmp_path / "key")) == "net.url"
