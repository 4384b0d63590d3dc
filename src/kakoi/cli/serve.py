"""``kakoi hub``, ``kakoi broker``, ``kakoi enclave``, ``kakoi platform``: the programs that run for long."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from kakoi.attest import registry
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.report import Collateral, Evidence, Verdict
from kakoi.attest.software.verify import reference_policy
from kakoi.broker import decisions, devmode
from kakoi.broker.desk import Judge
from kakoi.broker.ledger import Decision, Ledger
from kakoi.broker.service import Broker
from kakoi.cli.collateral import BundlesOption, CacheOption, CaOption, FromOption, TokenKeysOption, source
from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, err, errors_as_exit_codes, open_party, out, require_party, words
from kakoi.cli.watch import MetricsPort, watching
from kakoi.contract.approve import Agreement
from kakoi.contract.sign import open_card
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse, Unavailable
from kakoi.core.records import to_value
from kakoi.enclave import image as images
from kakoi.enclave.keeper.drive import CLAIM_SECONDS
from kakoi.evidence import software
from kakoi.evidence.software import SoftwarePlatform
from kakoi.party.files import read_limited, whole_or_absent, write_private
from kakoi.sdk.connect import connect

broker_app = typer.Typer(no_args_is_help=True, help=t("help.broker"))
enclave_app = typer.Typer(no_args_is_help=True, help=t("help.enclave"))
platform_app = typer.Typer(no_args_is_help=True, help=t("help.platform"))
_RUN: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from kakoi.enclave.keeper.__main__ import main; sys.exit(main(sys.argv[1:]))"
PlatformDirectory = Annotated[Path, typer.Option("--platform-directory", help=t("help.platform-directory"))]


@broker_app.command("serve", help=t("help.broker-serve"))
def broker_serve(
    party: Party,
    hub: HubUrl,
    collateral: Annotated[Path | None, typer.Option("--collateral", help=t("help.collateral"))] = None,
    collateral_cache: CacheOption = None,
    collateral_from: FromOption = "",
    collateral_ca: CaOption = None,
    collateral_bundles_from: BundlesOption = None,
    token_keys: TokenKeysOption = None,
    accept_software_platform: Annotated[
        bool, typer.Option("--accept-software-platform", help=t("help.accept-software"))
    ] = False,
    with_console: Annotated[bool, typer.Option("--console", help=t("help.broker-console"))] = False,
    console_port: Annotated[int, typer.Option("--console-port", help=t("help.console-port"))] = 8443,
    console_host: Annotated[str, typer.Option("--console-host", help=t("help.console-host"))] = "127.0.0.1",
    console_name: Annotated[str, typer.Option("--console-name", help=t("help.console-name"))] = "localhost",
    console_certificate: Annotated[
        Path | None, typer.Option("--console-certificate", help=t("help.console-certificate"))
    ] = None,
    console_key: Annotated[Path | None, typer.Option("--console-key", help=t("help.console-key"))] = None,
    metrics_port: MetricsPort = None,
    key_file: KeyFile = None,
) -> None:
    """Answer run requests until interrupted."""
    with errors_as_exit_codes(), ExitStack() as stack:
        verifiers = devmode.verifiers(flag=accept_software_platform, environment=os.environ)
        home = open_party(party, key_file)
        if accept_software_platform:
            err.print(f"[bold red]{t('software.notice')}[/]")

        client = connect(hub, home, software=accept_software_platform)
        where = (collateral, collateral_cache, collateral_from, collateral_ca)
        endorsements = source(*where, token_keys=token_keys, bundles=collateral_bundles_from, hub=client)
        signal.signal(signal.SIGTERM, _end)  # a polite stop writes and signs the last events
        watch = stack.enter_context(watching(home, "broker", metrics_port=metrics_port))
        broker = Broker(
            home=home,
            ledger=Ledger(home.path / "ledger.sqlite"),
            hub=client,
            collateral=endorsements,
            judge=judge_with(verifiers),
            clock=SystemClock(),
            tell=_tell,
        )
        if with_console:
            # Imported here so that a broker without a console needs no web framework.
            from kakoi.cli.console import server_for
            from kakoi.console.serve import in_thread
            from kakoi.console.settings import Settings

            settings = Settings(
                host=console_host,
                port=console_port,
                name=console_name,
                tls_certificate=console_certificate,
                tls_key=console_key,
            )
            stack.enter_context(in_thread(server_for(home, hub, settings, broker=True, watch=watch)))
        err.print(t("broker.ready", name=home.card.record.name))
        _answer(broker)


def _answer(broker: Broker) -> NoReturn:
    while True:
        try:
            broker.step(wait=2)
        except Unavailable as error:
            err.print(t("broker.waits", message=error.message, code=error.code))
            time.sleep(1)


def _end(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def judge_with(verifiers: devmode.Verifiers) -> Judge:
    """What a broker judges evidence with: the contract's policy, these verifiers, and what it accepted before."""

    def judge(
        evidence: Evidence,
        endorsements: Collateral,
        agreement: Agreement,
        report_data: bytes,
        now: int,
        floors: Mapping[str, int],
    ) -> Verdict:
        policy = agreement.contract.platforms
        return registry.judge(
            evidence,
            endorsements,
            policy,
            report_data=report_data,
            now=now,
            verifiers=verifiers(policy),
            evaluation_floors=floors,
        )

    return judge


def _tell(decision: Decision) -> None:
    key = "broker.yes" if decision.outcome == "yes" else "broker.no"
    passed = sum(1 for check in decision.checks if check["outcome"] == "passed")
    err.print(
        t(key, run=decision.run[:12], step=decision.step, code=decision.code, passed=passed, message=decision.message)
    )


@broker_app.command("log", help=t("help.broker-log"))
def broker_log(party: Annotated[Path, typer.Option("--party", help=t("help.party-directory"))]) -> None:
    """Print the decision log as JSON lines, after checking its chain. Needs no keys."""
    with errors_as_exit_codes():
        require_party(party)
        for decision in Ledger(party / "ledger.sqlite").decisions():
            typer.echo(json.dumps(decision, ensure_ascii=False))


@broker_app.command("prove", help=t("help.broker-prove"))
def broker_prove(
    party: Party,
    number: Annotated[int, typer.Option("--number", min=1, help=t("help.decision-number"))],
    out_file: Annotated[Path, typer.Option("--out", help=t("help.out"))],
    key_file: KeyFile = None,
) -> None:
    """Write one decision with a proof that it is in this party's decision log, for somebody who may not see the others."""
    with errors_as_exit_codes():
        home = open_party(party, key_file)
        with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
            proof = decisions.prove(home, ledger, number, now=SystemClock().now())
        write_private(out_file, proof.encode())
        out.print(t("run.written", path=out_file))


@broker_app.command("check-proof", help=t("help.broker-check-proof"))
def broker_check_proof(
    file: Annotated[Path, typer.Argument(help=t("help.decision-proof"))],
    card: Annotated[Path, typer.Option("--card", help=t("help.card-file"))],
) -> None:
    """Check such a proof against the party's card, and print the decision."""
    with errors_as_exit_codes():
        signed = open_card(Envelope.decode(read_limited(card, limit=1024 * 1024)))
        proven = decisions.verify(read_limited(file, limit=decisions.DecisionProof.MAX_BYTES), signed)
        typer.echo(json.dumps(proven.body, ensure_ascii=False))
        err.print(
            t(
                "broker.proven",
                number=proven.number,
                size=proven.head.size,
                name=signed.record.name,
                root=proven.head.root,
                words=words(proven.head.root),
            )
        )


@platform_app.command("new", help=t("help.platform-new"))
def platform_new(directory: Annotated[Path, typer.Argument(help=t("help.platform-directory"))]) -> None:
    """Make a software platform: a local root that plays the hardware vendor. It protects nothing."""
    with errors_as_exit_codes():
        with whole_or_absent(directory):
            software.create(directory)
        out.print(f"[bold red]{t('software.notice')}[/]")


@platform_app.command("collateral", help=t("help.platform-collateral"))
def platform_collateral(
    directory: Annotated[Path, typer.Argument(help=t("help.platform-directory"))],
    out_file: Annotated[Path, typer.Option("--out", help=t("help.out"))],
) -> None:
    """Write the vendor's current endorsements, as an owner would fetch them."""
    with errors_as_exit_codes():
        collateral = SoftwarePlatform.load(directory).collateral(SystemClock().now())
        write_private(out_file, collateral.encode(), mode=0o644)


@enclave_app.command("build", help=t("help.enclave-build"))
def enclave_build(directory: Annotated[Path, typer.Argument(help=t("help.image"))]) -> None:
    """Build the enclave's image and print its measurement."""
    with errors_as_exit_codes(), whole_or_absent(directory):
        out.print(images.build(directory).hex())


@enclave_app.command("measure", help=t("help.enclave-measure"))
def enclave_measure(directory: Annotated[Path, typer.Argument(help=t("help.image"))]) -> None:
    """Print an image's measurement: the reference value that contracts name."""
    with errors_as_exit_codes():
        out.print(images.measure(directory).hex())


@enclave_app.command("policy", help=t("help.enclave-policy"))
def enclave_policy(
    image: Annotated[Path, typer.Option("--image", help=t("help.image"))],
    directory: PlatformDirectory,
    out_file: Annotated[Path, typer.Option("--out", help=t("help.out"))],
) -> None:
    """Write a platform policy for contracts: this image, on this software platform."""
    with errors_as_exit_codes():
        policy = software_policy(images.measure(image), SoftwarePlatform.load(directory))
        write_private(out_file, (json.dumps(to_value(policy), indent=2) + "\n").encode(), mode=0o644)


def software_policy(measurement: bytes, platform: SoftwarePlatform) -> AttestationPolicy:
    """The policy that accepts one image on one software platform and nothing else."""
    entry = reference_policy(mrenclave=measurement.hex(), root=platform.root_spki_sha256)
    return AttestationPolicy(accepted=(entry,))


@enclave_app.command("serve", help=t("help.enclave-serve"))
def enclave_serve(
    image: Annotated[Path, typer.Option("--image", help=t("help.image"))],
    hub: HubUrl,
    token_file: Annotated[Path, typer.Option("--token-file", help=t("help.token-file"))],
    platform: Annotated[str, typer.Option("--platform", help=t("help.enclave-platform"))] = "software",
    directory: Annotated[Path | None, typer.Option("--platform-directory", help=t("help.platform-directory"))] = None,
    name: Annotated[str, typer.Option("--name", help=t("help.enclave-name"))] = "enclave",
    claim_seconds: Annotated[
        int, typer.Option("--claim-seconds", min=2, max=3600, help=t("help.claim-seconds"))
    ] = CLAIM_SECONDS,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help=t("help.enclave-jobs"))] = 1,
    attest_with: Annotated[list[str] | None, typer.Option("--attest-with", help=t("help.attest-with"))] = None,
    attest_key_file: Annotated[Path | None, typer.Option("--attest-key-file", help=t("help.attest-key-file"))] = None,
    hub_ca: Annotated[Path | None, typer.Option("--hub-ca", help=t("help.enclave-hub-ca"))] = None,
    hub_certificate: Annotated[
        Path | None, typer.Option("--hub-certificate", help=t("help.enclave-hub-certificate"))
    ] = None,
    hub_key: Annotated[Path | None, typer.Option("--hub-key", help=t("help.enclave-hub-key"))] = None,
    events: Annotated[Path | None, typer.Option("--events", help=t("help.enclave-events"))] = None,
) -> None:
    """Become the enclave: replace this process by the image's program, with nothing of this one left."""
    with errors_as_exit_codes():
        if not (image / images.LOCK).exists():
            raise Misuse("image.missing", f"expected an image in {image}, found none", hint="kakoi enclave build")
        options = ["--hub", hub, "--platform", platform]
        if directory is not None:
            options += ["--platform-directory", str(directory.resolve())]
        options += ["--token-file", str(token_file.resolve()), "--name", name]
        options += ["--claim-seconds", str(claim_seconds), "--jobs", str(jobs)]
        for entry in attest_with or []:
            options += ["--attest-with", entry]
        for option, path in (
            ("--attest-key-file", attest_key_file),
            ("--hub-ca", hub_ca),
            ("--hub-certificate", hub_certificate),
            ("--hub-key", hub_key),
        ):
            if path is not None:
                options += [option, str(path.resolve())]
        command = [sys.executable, "-I", "-B", "-c", _RUN, str(image.resolve()), *options]
        if events is not None:
            from kakoi.cli.enclave_host import host

            raise typer.Exit(host(command, _environment(), events))
        os.execve(sys.executable, command, _environment())  # noqa: S606 - our own interpreter, no shell


def _environment() -> dict[str, str]:
    """What the enclave needs of the host's environment: nothing but where programs lie."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}
