"""Object stores of clouds, as programs on this machine: moto's server for S3, Azurite for Azure.

For Google again moto's: obstore speaks Google's XML API, which answers as S3 does (buckets in the path, `list-type=2`, multipart uploads
in parts). gcp-storage-emulator speaks the JSON API; of the XML API it knows neither HEAD, DELETE, listing nor multipart uploads.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's only account; both are in its manual."""
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kakoi-tests" / "azurite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Where a store is, and the environment with which a hub gets in."""

    url: str
    environment: dict[str, str]
    port: int


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def _moto(bucket: str) -> Iterator[int]:
    """The port of a server that has a bucket."""
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        with closing(client):
            client.create_bucket(Bucket=bucket)
        yield port
    finally:
        server.stop()


@contextmanager
def s3() -> Iterator[Cloud]:
    """A bucket."""
    with _moto("kakoi-blobs") as port:
        environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        yield Cloud(url="s3://kakoi-blobs/hub", environment=environment, port=port)


@contextmanager
def google() -> Iterator[Cloud]:
    """A bucket whose name has no hyphen: obstore sends that as %2D, which Google's servers decode, and moto's does not."""
    with _moto("kakoiblobs") as port:
        environment = {"GOOGLE_BASE_URL": f"http://127.0.0.1:{port}", "GOOGLE_BEARER_TOKEN": "test"}
        yield Cloud(url="gs://kakoiblobs/hub", environment=environment, port=port)


def _azurite() -> str:
    """Azurite's program; installed from npm into a cache directory the first time."""
    found = shutil.which("azurite-blob")
    if found is not None:
        return found
    program = _CACHE / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return str(program)
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs azurite, or node and npm to install it")
    _CACHE.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "azurite@3"]
    try:
        done = subprocess.run(command, cwd=_CACHE, capture_output=True, timeout=150, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("azurite could not be installed in time")
    if done.returncode != 0 or not program.exists():
        pytest.skip("azurite could not be installed")
    return str(program)


@contextmanager
def azure(directory: Path) -> Iterator[Cloud]:
    """A container."""
    port = free_port()
    where = ["--location", str(directory), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command = [_azurite(), *where, "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None, "azurite ended at once"
            assert time.monotonic() < deadline, "azurite did not start"
            time.sleep(0.1)
        _create_container(port)
        yield Cloud(
            url="az://kakoi-blobs/hub",
            environment={
                "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
                "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_ACCOUNT}",
            },
            port=port,
        )
    finally:
        process.terminate()
        process.wait(timeout=30)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _create_container(port: int) -> None:
    """Azure's "Put container" with a shared key: obstore makes objects only."""
    date, version = email.utils.formatdate(usegmt=True), "2021-12-02"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}"
    text = f"PUT{chr(10) * 12}{headers}\n/{_ACCOUNT}/{_ACCOUNT}/kakoi-blobs\nrestype:container"
    digest = hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(
            "PUT",
            f"/{_ACCOUNT}/kakoi-blobs?restype=container",
            headers={
                "x-ms-date": date,
                "x-ms-version": version,
                "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}",
                "Content-Length": "0",
            },
        )
        assert connection.getresponse().status == 201
