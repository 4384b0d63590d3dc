"""The enclave's program: claims runs from the hub and carries them out, one after another in each keeper, until it is stopped.

Started from an image (``kakoi enclave build``), which is what is measured; every module it loads comes from there.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Final, NoReturn

import kakoi
from kakoi.core.errors import KakoiError, Misuse, Unavailable
from kakoi.enclave import image
from kakoi.enclave.keeper import keepers
from kakoi.enclave.keeper.compute import SandboxedEngine
from kakoi.enclave.keeper.drive import CLAIM_SECONDS, Drive, Enclave
from kakoi.enclave.keeper.hardening import harden
from kakoi.enclave.keeper.producers import NAMES, producer
from kakoi.enclave.keeper.secret import Kind, kind_here
from kakoi.evidence import tokens
from kakoi.net.client import HubClient
from kakoi.net.identity import enclave_identity
from kakoi.net.tls import client_tls

IMAGE: Final = Path(kakoi.__file__).parent.parent


def main(arguments: list[str]) -> int:
    """Serve until interrupted; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kakoi-enclave")
    parser.add_argument("--hub", required=True)
    for name in ("--hub-ca", "--hub-certificate", "--hub-key"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--platform", choices=NAMES, required=True)
    parser.add_argument("--platform-directory", type=Path)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--attest-with", action="append", default=[])
    parser.add_argument("--attest-key-file", type=Path)
    parser.add_argument("--name", default="enclave")
    parser.add_argument("--claim-seconds", type=int, default=CLAIM_SECONDS)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    if options.jobs > 1:
        return keepers.several(options.jobs, lambda place: _one(options, f"{options.name}-{place + 1}"))
    return _one(options, options.name)


def _one(options: argparse.Namespace, name: str) -> int:
    """One keeper, until it ends; returns the exit code."""
    options.name = name
    try:
        _serve(options)
    except KakoiError as error:
        _say("", f"stops: {error.message} [{error.code}] {error.hint}")
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _serve(options: argparse.Namespace) -> None:
    if not (IMAGE / image.LOCK).exists():
        raise Misuse(
            "image.missing", "expected to run from an image, got the installed package", hint="kakoi enclave serve"
        )
    missing = harden()
    with closing(SandboxedEngine()) as engine:
        _claims(options, engine, missing)


def _claims(options: argparse.Namespace, engine: SandboxedEngine, missing: tuple[str, ...]) -> NoReturn:
    """Claim runs and carry them out, for ever."""
    enclave = Enclave(
        hub=_hub(options),
        producer=producer(options.platform, software=options.platform_directory, measurement=image.measure(IMAGE)),
        engine=engine,
        missing_layers=tuple(sorted({*missing, *engine.missing_layers})),
        tell=_say,
        claim_seconds=options.claim_seconds,
        token_clients=tokens.clients(options.attest_with, _api_key(options.attest_key_file)),
    )
    _say("", _aloud(kind_here()))
    _say("", "ready; missing isolation layers: " + (", ".join(enclave.missing_layers) or "none"))
    while True:
        try:
            seconds = enclave.claim_seconds
            claim = enclave.hub.claim(enclave=options.name, seconds=seconds, wait=20)
            if claim is not None:
                _say(claim.run, f"claimed, attempt {claim.attempt}")
                Drive(enclave, claim).carry_out()
        except Unavailable as error:
            _say("", f"waits: {error.message} [{error.code}]")
            time.sleep(1)


def _hub(options: argparse.Namespace) -> HubClient:
    identity = enclave_identity(options.name, _token(options.token_file))
    tls = client_tls(options.hub_ca, options.hub_certificate, options.hub_key)
    return HubClient(options.hub, identity=identity, tls=tls, software=options.platform == "software")


def _aloud(kind: Kind) -> str:
    return {
        "memfd_secret": "root keys lie in memfd_secret pages",
        "locked": "NOTE: this kernel has no memfd_secret: root keys lie in ordinary locked memory, which root here can read",
        "ordinary": "NOTE: root keys lie in ordinary memory, which root here can read and which may be swapped",
    }[kind]


def _end(signal_number: int, frame: object) -> NoReturn:
    """The operator's polite stop ends like an interrupt: keys are wiped and sandboxes killed on the way out."""
    raise KeyboardInterrupt


def _token(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Misuse("file.missing", f"expected a text in {path}, found none") from None


def _api_key(path: Path | None) -> str:
    return "" if path is None else _token(path)


def _say(run: str, step: str) -> None:
    print(f"{run[:12] or '-'} {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
