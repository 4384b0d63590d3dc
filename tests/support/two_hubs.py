"""Two hubs on one PostgreSQL and one object store, as processes, and parties that know both addresses."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kakoi.cli.demo.stage import Stage
from kakoi.cli.demo.voices import Voices
from kakoi.net.identity import enclave_identity

HUBS: Final = ("hub", "hub-two")
SHARED: Final = ("log-key.json", "operator.token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What the hubs share."""

    database: str
    blobs: str


class TwoHubs(Stage):
    """``kill`` and ``revive`` either, or both."""

    def __init__(self, directory: Path, stores: Stores) -> None:
        super().__init__(directory)
        self._stores = stores
        self._urls = dict.fromkeys(HUBS, "")

    def start_hub(self) -> Voices:
        """Both; the address is that of the first and of the second."""
        first, second = (self.directory / name for name in HUBS)
        first.mkdir(parents=True, exist_ok=True)
        self.token_file.write_text(secrets.token_hex(32))
        self.token_file.chmod(0o600)
        self.revive(HUBS[0])
        second.mkdir()
        for name in SHARED:
            shutil.copy(first / name, second / name)
        self.revive(HUBS[1])
        self.hub_url = ",".join(self._urls.values())
        client = Voices(self.hub_url, enclave_identity("attacker", self.token_file.read_text().strip()))
        client.health()
        return client

    def kill(self, name: str) -> None:
        """kill -9."""
        self.stop(name, kill=True)

    def revive(self, name: str) -> None:
        """Start it, on the port that it had."""
        home = self.directory / name
        (home / "address").unlink(missing_ok=True)
        port = self._urls[name].rpartition(":")[2] or "0"
        command = ["hub", "serve", "--directory", str(home), "--token-file", str(self.token_file), "--port", port]
        command += ["--blobs", self._stores.blobs, "--database", self._stores.database]
        self.start(name, command)
        self._wait(name, lambda: (home / "address").exists())
        self._urls[name] = (home / "address").read_text().strip()
