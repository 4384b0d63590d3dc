"""TLS 1.3 and mutual TLS as clients meet them: a real hub, real certificates."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from typing import Final

import pytest

from kakoi.core.errors import KakoiError, Misuse
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.net.caller import Patience
from kakoi.sdk.connect import CA, CERTIFICATE, KEY, tls_of
from support.hub_client import client_of
from support.tls import Authority

PATIENCE: Final = Patience(attempts=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "services")


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> Settings:
    certificate, key = authority.issue("hub")
    return Settings(
        directory=tmp_path / "hub",
        port=0,
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=authority.file,
    )


def environment(authority: Authority, shown: tuple[Path, Path]) -> dict[str, str]:
    return {CA: str(authority.file), CERTIFICATE: str(shown[0]), KEY: str(shown[1])}


def test_only_services_with_a_certificate_of_ours_are_connected(
    settings: Settings, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "strangers")
    with running(settings) as server:
        good = tls_of(environment(authority, authority.issue("broker")))
        with client_of(server, tls=good, patience=PATIENCE) as client:
            client.log_checkpoint()
        nobody = tls_of({CA: str(authority.file)})
        foreign = tls_of(environment(authority, stranger.issue("other")))
        late = tls_of(environment(authority, authority.issue("late", expired=True)))
        for context in (nobody, foreign, late):
            with client_of(server, tls=context, patience=PATIENCE) as client, pytest.raises(KakoiError):
                client.health()
        distrusting = tls_of(environment(stranger, authority.issue("careful")))
        with client_of(server, tls=distrusting, patience=PATIENCE) as client:
            with pytest.raises(KakoiError) as caught:
                client.health()
            assert caught.value.code == "hub.certificate"


def test_nothing_older_than_tls_1_3_and_answers_say_to_stay(settings: Settings, authority: Authority) -> None:
    context = tls_of(environment(authority, authority.issue("browser")))
    assert context is not None
    with running(settings) as server:
        host, port = server.url.removeprefix("https://").split(":")
        for target, status in (("/v1/health", 200), ("/v1/feed", 401)):
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
            connection.request("GET", target)
            answer = connection.getresponse()
            assert answer.status == status
            assert answer.getheader("Strict-Transport-Security") == "max-age=31536000"
            connection.close()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with client_of(server, tls=context, patience=PATIENCE) as client, pytest.raises(KakoiError):
            client.health()


def refused(settings: Settings) -> str:
    with pytest.raises(Misuse) as caught, running(settings):
        pass
    return caught.value.code


def test_settings_that_cannot_be(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("hub")
    assert refused(Settings(directory=tmp_path / "a", port=0, tls_client_ca=authority.file)) == "hub.tls"
    bad = Settings(directory=tmp_path / "b", port=0, tls_certificate=certificate, tls_key=key, tls_client_ca=key)
    assert refused(bad) == "hub.tls"
    everywhere = Settings(directory=tmp_path / "c", host="0.0.0.0", port=0, tls_certificate=certificate, tls_key=key)  # noqa: S104
    assert refused(everywhere) == "hub.names"
    for one in (CERTIFICATE, KEY):
        with pytest.raises(Misuse):
            tls_of({one: str(certificate)})
    with pytest.raises(Misuse):
        tls_of({CA: str(tmp_path / "none")})
    assert tls_of({}) is None
