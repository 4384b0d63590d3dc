"""TAXII 2.1 both ways: our client against OASIS' own server, OASIS' own client against our server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import stix2
import uvicorn
from taxii2client.common import TokenAuth
from taxii2client.exceptions import TAXIIServiceException
from taxii2client.v21 import Collection, Server, as_pages

from kakoi.core.errors import KakoiError, Misuse, Unavailable
from kakoi.guard.intel import taxii_client
from kakoi.guard.intel.indicator import Indicator
from kakoi.guard.intel.sightings import Refusal, objects
from kakoi.guard.intel.store import read_objects
from kakoi.guard.intel.taxii_server import COLLECTION, application
from unit.intel.test_indicators import CODE, stix

TOKEN = "token-of-the-test-0123456789"
THEIRS = "472c94ae-3113-4e3e-a4dd-a9f4ac7471d4"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answering(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            assert time.monotonic() < deadline, f"expected {url} to answer"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="module")
def medallion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The reference server with a collection of indicators that can be written; its address."""
    directory, port = tmp_path_factory.mktemp("medallion"), free_port()
    media = "application/stix+json;version=2.1"
    given = [stix(), stix("[file:name = 'x']", id="indicator--22222222-2222-4222-8222-222222222222")]
    manifest = [
        {"id": item["id"], "date_added": item["modified"], "version": item["modified"], "media_type": media}
        for item in given
    ]
    collection = {
        "id": THEIRS,
        "title": "t",
        "can_read": True,
        "can_write": True,
        "media_types": [media],
        "objects": given,
        "manifest": manifest,
    }
    root = {
        "information": {
            "title": "t",
            "versions": ["application/taxii+json;version=2.1"],
            "max_content_length": 9765625,
        },
        "status": [],
        "collections": [collection],
    }
    data = directory / "data.json"
    data.write_text(json.dumps({"/discovery": {"title": "t", "api_roots": []}, "hub": root}))
    backend = {"module": "medallion.backends.memory_backend", "module_class": "MemoryBackend", "filename": str(data)}
    config = directory / "config.json"
    config.write_text(json.dumps({"users": {"kakoi": "secret"}, "taxii": {"max_page_size": 100}, "backend": backend}))
    command = [sys.executable, "-W", "ignore", "-m", "medallion.scripts.run", str(config), "--port", str(port)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        answering(f"http://127.0.0.1:{port}/taxii2/")
        yield f"http://127.0.0.1:{port}/hub/collections/{THEIRS}/"
    finally:
        process.kill()
        process.wait()


def test_our_client_takes_from_the_reference_server(medallion: str) -> None:
    place = taxii_client.collection(medallion, user="kakoi", password="secret")
    found, aside = read_objects(taxii_client.pull(place), source="them")
    assert [(item.kind, item.value, item.source) for item in found] == [("measurement", CODE, "them")]
    assert [item.reason for item in aside] == ["a pattern that nothing here can act on"]


def test_wrong_credentials_and_dead_servers(medallion: str) -> None:
    with pytest.raises(Unavailable):
        list(taxii_client.pull(taxii_client.collection(medallion, user="kakoi", password="wrong")))
    with pytest.raises(Unavailable):
        list(taxii_client.pull(taxii_client.collection(f"http://127.0.0.1:{free_port()}/c/")))
    with pytest.raises(Misuse):
        taxii_client.collection("http://example.org/collections/1/")


def test_sightings_reach_the_reference_server(medallion: str) -> None:
    made = objects(
        [Refusal(kind="measurement", value=CODE, at=1_770_000_000, code="appraisal.refused")],
        reporter="r" * 64,
        tlp="TLP:GREEN",
        matched={},
    )
    place = taxii_client.collection(medallion, user="kakoi", password="secret")
    assert taxii_client.push(place, made) == len(made) == 3
    there = {item["id"] for item in taxii_client.pull(place)}
    assert {item["id"] for item in made} <= there
    assert taxii_client.push(place, []) == 0


def refusals(count: int) -> list[Refusal]:
    return [
        Refusal(kind="measurement", value=f"{number + 1:064x}", at=1_770_000_000 + number, code="appraisal.refused")
        for number in range(count)
    ]


@contextmanager
def serving(made: list[dict[str, Any]]) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            application(lambda: made, token=TOKEN, title="t"), host="127.0.0.1", port=port, log_level="error"
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        answering(f"http://127.0.0.1:{port}/taxii2/")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def test_the_reference_client_reads_our_server() -> None:
    made = objects(refusals(7), reporter="r" * 64, tlp="TLP:AMBER", matched={})
    assert len(made) == 15
    with serving(made) as url:
        auth = TokenAuth(TOKEN)
        server = Server(f"{url}/taxii2/", auth=auth)
        (place,) = server.api_roots[0].collections
        assert (place.id, place.can_read, place.can_write) == (COLLECTION, True, False)
        pages = list(as_pages(place.get_objects, per_request=4))
        assert [len(page["objects"]) for page in pages] == [4, 4, 4, 3]
        got = [item for page in pages for item in page["objects"]]
        assert sorted(item["id"] for item in got) == sorted(item["id"] for item in made)
        assert got == sorted(got, key=lambda item: (item["modified"], item["id"]))
        assert {item["type"] for item in place.get_objects(type="sighting")["objects"]} == {"sighting"}
        assert place.get_objects(added_after=got[-1]["modified"])["objects"] == []
        assert len(place.get_manifest()["objects"]) == 15
        with pytest.raises(TAXIIServiceException):
            place.add_objects({"objects": made[:1]})


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
def test_nobody_reads_without_the_token(header: dict[str, str]) -> None:
    with serving([]) as url:
        for path in ("/taxii2/", "/kakoi/", "/kakoi/collections/", f"/kakoi/collections/{COLLECTION}/objects/"):
            assert requests.get(url + path, headers=header, timeout=30).status_code == 401
        assert requests.get(f"{url}/docs", headers=header, timeout=30).status_code == 404


def test_what_we_tell_is_stix_and_the_same_twice() -> None:
    """The reference library parses every object; nothing names a run, a contract or a person."""
    told = [
        *refusals(2),
        Refusal(kind="platform", value="0011223344", at=1_770_090_000, code="appraisal.refused"),
        *refusals(2),
    ]
    made = objects(told, reporter="r" * 64, tlp="TLP:AMBER", matched={})
    assert made == objects(told, reporter="r" * 64, tlp="TLP:AMBER", matched={})
    for item in made:
        stix2.parse(item, allow_custom=False)
    sightings = [item for item in made if item["type"] == "sighting"]
    assert [item["count"] for item in sightings] == [1, 2, 2] or sorted(item["count"] for item in sightings) == [
        1,
        2,
        2,
    ]
    assert set().union(*(item.keys() for item in made)).isdisjoint({"run", "contract", "patient"})
    found, aside = read_objects(made, source="us")
    assert (len(found), aside) == (3, [])


def test_a_sighting_of_somebody_elses_indicator_names_it() -> None:
    (theirs,), _ = read_objects([stix()], source="cert")
    assert isinstance(theirs, Indicator)
    refused = [Refusal(kind="measurement", value=CODE, at=1_770_000_000, code="x")]
    made = objects(refused, reporter="r", tlp="TLP:CLEAR", matched={("measurement", CODE): theirs})
    assert [item["type"] for item in made] == ["identity", "sighting"]
    assert made[1]["sighting_of_ref"] == theirs.id
    acted = [Refusal(kind="indicator", value=theirs.id, at=1_770_000_000, code="decision.indicator")]
    assert objects(acted, reporter="r", tlp="TLP:CLEAR", matched={})[1]["sighting_of_ref"] == theirs.id


def test_a_server_that_lies(tmp_path: Path) -> None:
    """No STIX, endless pages: an error of ours each."""

    def listing(value: Any) -> Collection:
        place = taxii_client.collection("http://127.0.0.1:1/c/")
        place.get_objects = lambda **filters: value
        return place

    with pytest.raises(KakoiError):
        list(taxii_client.pull(listing(["no page"])))
    endless = {"more": True, "next": "1", "objects": [stix()] * 5000}
    with pytest.raises(KakoiError) as caught:
        list(taxii_client.pull(listing(endless)))
    assert caught.value.code in ("intel.size", "intel.object", "intel.server")
