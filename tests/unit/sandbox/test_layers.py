"""Missing walls are named, and refuse unless they are accepted by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakoi.core.errors import Refused
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.layers import Layer


@pytest.fixture
def two_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tuple(
        Layer(name=name, missing="not here" if name in (layers.CGROUP, layers.LANDLOCK) else "", worth=worth)
        for name, worth in layers.WORTH.items()
    )
    monkeypatch.setattr(layers, "layers", lambda: found)


@pytest.mark.usefixtures("two_missing")
def test_an_unaccepted_absence_refuses_and_names_it() -> None:
    for accepted in ((), (layers.CGROUP,), (layers.UID, layers.SECCOMP)):
        with pytest.raises(Refused) as caught:
            layers.require(accepted)
        assert caught.value.code == "sandbox.layer-missing"
        for name in {layers.CGROUP, layers.LANDLOCK} - set(accepted):
            assert name in caught.value.message
        assert "accepted_weaknesses" in caught.value.hint


@pytest.mark.usefixtures("two_missing")
def test_accepted_by_name() -> None:
    assert layers.missing() == (layers.CGROUP, layers.LANDLOCK)
    assert layers.require([layers.LANDLOCK, layers.CGROUP]) == {layers.CGROUP, layers.LANDLOCK}
    assert layers.require([*layers.WORTH]) == {layers.CGROUP, layers.LANDLOCK}, "accepting more switches nothing off"


def test_every_layer_is_probed_here() -> None:
    found = layers.layers()
    assert [layer.name for layer in found] == list(layers.WORTH)
    assert all(layer.name.startswith("sandbox.") for layer in found)
    assert next(layer for layer in found if layer.name == layers.RLIMITS).present


def test_users_that_a_container_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    table = tmp_path / "uid_map"
    for text, present in (
        ("0 0 4294967295\n", True),
        ("0 100000 65536\n", True),
        ("0 0 1\n", False),
        ("0 0 64500\n", False),
    ):
        table.write_text(text)
        assert (layers.uid_reason(table) == "") is present
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert layers.uid_reason(table) == ""


def test_whether_this_process_may_mount(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t000001ffffffffff\n")
    assert layers.may_mount(status)
    status.write_text("Name:\tx\nCapEff:\t00000000a80425fb\n")
    assert not layers.may_mount(status), "what Docker's root has"
