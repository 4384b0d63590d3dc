"""``kakoi hub serve``: every door, and what each is told.

An owner's machine does not have the hub's dependencies, so they are imported only where a hub is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kakoi.cli.i18n import t
from kakoi.cli.ui import errors_as_exit_codes

if TYPE_CHECKING:
    from kakoi.hub.settings import Listener

Directory = Annotated[Path, typer.Option("--directory", help=t("help.hub-directory"))]
Database = Annotated[
    str,
    typer.Option(
        "--database", envvar="KAKOI_DATABASE", show_envvar=True, show_default=False, help=t("help.hub-database")
    ),
]
Host = Annotated[str, typer.Option("--host", help=t("help.hub-host"))]
Port = Annotated[int, typer.Option("--port", help=t("help.hub-port"))]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help=t("help.token-file"))]
Blobs = Annotated[str, typer.Option("--blobs", help=t("help.hub-blobs"))]
Names = Annotated[list[str] | None, typer.Option("--name", help=t("help.hub-name"))]
Networks = Annotated[list[str] | None, typer.Option("--allow", help=t("help.hub-allow"))]
Hubs = Annotated[int, typer.Option("--hubs", min=1, help=t("help.hub-hubs"))]
PolicyFolder = Annotated[Path | None, typer.Option("--policies", help=t("help.hub-policies"))]
OldestClient = Annotated[str, typer.Option("--oldest-client", help=t("help.hub-oldest-client"))]
HardwareOnly = Annotated[bool, typer.Option("--hardware-only", help=t("help.hub-hardware-only"))]
Certificate = Annotated[Path | None, typer.Option("--tls-certificate", help=t("help.hub-tls-certificate"))]
Key = Annotated[Path | None, typer.Option("--tls-key", help=t("help.hub-tls-key"))]
ClientCa = Annotated[Path | None, typer.Option("--tls-client-ca", help=t("help.hub-tls-client-ca"))]
EnclaveCa = Annotated[Path | None, typer.Option("--enclave-ca", help=t("help.hub-enclave-ca"))]
MetricsPort = Annotated[int | None, typer.Option("--metrics-port", help=t("help.hub-metrics-port"))]
MetricsHost = Annotated[str, typer.Option("--metrics-host", help=t("help.hub-metrics-host"))]
MetricsNetworks = Annotated[list[str] | None, typer.Option("--metrics-allow", help=t("help.hub-allow"))]
MetricsCertificate = Annotated[Path | None, typer.Option("--metrics-certificate", help=t("help.hub-tls-certificate"))]
MetricsKey = Annotated[Path | None, typer.Option("--metrics-key", help=t("help.hub-tls-key"))]
MetricsClientCa = Annotated[Path | None, typer.Option("--metrics-client-ca", help=t("help.hub-tls-client-ca"))]
OperationsPort = Annotated[int | None, typer.Option("--operations-port", help=t("help.hub-operations-port"))]
OperationsHost = Annotated[str, typer.Option("--operations-host", help=t("help.hub-operations-host"))]
OperationsName = Annotated[str, typer.Option("--operations-name", help=t("help.hub-operations-name"))]
OperationsNetworks = Annotated[list[str] | None, typer.Option("--operations-allow", help=t("help.hub-allow"))]
OperationsCertificate = Annotated[
    Path | None, typer.Option("--operations-certificate", help=t("help.hub-tls-certificate"))
]
OperationsKey = Annotated[Path | None, typer.Option("--operations-key", help=t("help.hub-tls-key"))]
Operators = Annotated[Path | None, typer.Option("--operators", help=t("help.hub-operators"))]


def serve(
    directory: Directory,
    database: Database = "",
    host: Host = "127.0.0.1",
    port: Port = 0,
    token_file: TokenFile = None,
    blobs: Blobs = "",
    name: Names = None,
    allow: Networks = None,
    policies: PolicyFolder = None,
    hubs: Hubs = 1,
    oldest_client: OldestClient = "",
    hardware_only: HardwareOnly = False,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    tls_client_ca: ClientCa = None,
    enclave_ca: EnclaveCa = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    metrics_allow: MetricsNetworks = None,
    metrics_certificate: MetricsCertificate = None,
    metrics_key: MetricsKey = None,
    metrics_client_ca: MetricsClientCa = None,
    operations_port: OperationsPort = None,
    operations_host: OperationsHost = "127.0.0.1",
    operations_name: OperationsName = "",
    operations_allow: OperationsNetworks = None,
    operations_certificate: OperationsCertificate = None,
    operations_key: OperationsKey = None,
    operators: Operators = None,
) -> None:
    """Run a hub until interrupted."""
    from kakoi.hub.serve import serve as run_hub
    from kakoi.hub.settings import Settings

    metered, own = (metrics_certificate, metrics_key, metrics_client_ca), (operations_certificate, operations_key)
    with errors_as_exit_codes():
        settings = Settings(
            directory=directory,
            database_url=database,
            host=host,
            port=port,
            operator_token_file=token_file,
            blobs=blobs,
            names=tuple(name or ()),
            allow=tuple(allow or ()),
            policies=policies,
            hubs=hubs,
            oldest_client=oldest_client,
            hardware_only=hardware_only,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            enclave_ca=enclave_ca,
            metrics=_listener(metrics_host, metrics_port, metrics_allow, *metered),
            operations=_listener(operations_host, operations_port, operations_allow, *own),
            operations_name=operations_name,
            operators=operators,
        )
        run_hub(settings)


def _listener(
    host: str,
    port: int | None,
    allow: list[str] | None,
    certificate: Path | None,
    key: Path | None,
    client_ca: Path | None = None,
) -> Listener | None:
    from kakoi.hub.settings import Listener

    if port is None:
        return None
    return Listener(
        host=host,
        port=port,
        allow=tuple(allow or ()),
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=client_ca,
    )
