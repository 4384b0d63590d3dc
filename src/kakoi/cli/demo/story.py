"""The demo's story, told while it happens."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from kakoi.attest.software.admit import with_software
from kakoi.cli.demo import show
from kakoi.cli.demo.attacks import WITH_ENCLAVE, WITHOUT_ENCLAVE, Attack, Scene
from kakoi.cli.demo.cast import Cast
from kakoi.cli.demo.data import write_hospitals
from kakoi.cli.demo.stage import Stage
from kakoi.cli.hub import log_key
from kakoi.cli.i18n import t
from kakoi.cli.run import show_verified
from kakoi.cli.ui import SystemClock, out, plain
from kakoi.core.errors import Fatal, Misuse
from kakoi.core.ids import ObjectId
from kakoi.enclave import machine
from kakoi.net.client import HubClient
from kakoi.party.files import write_private
from kakoi.sdk.run import Opened, await_run, bindings, load_agreement, open_result, request_run
from kakoi.wire.messages import Session

_MARKER: Final = ".kakoi-demo"


class Telling:
    """Steps with a bar, and a line with the time for each that is done."""

    def __init__(self, steps: int) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=out, transient=True)
        self.task = self.progress.add_task("", total=steps)

    @contextmanager
    def step(self, key: str, **parameters: object) -> Iterator[None]:
        """Name what happens now; when it is done, say how long it took."""
        text = t(f"demo.step.{key}", **parameters)
        self.progress.update(self.task, description=text)
        started = time.monotonic()
        yield
        self.progress.advance(self.task)
        self.progress.console.print(f"[green]✔[/] {text} [dim]{time.monotonic() - started:.1f} s[/]")

    def note(self, text: str) -> None:
        """A line below the step that is going on."""
        self.progress.console.print(f"    [dim]{text}[/]")


def tell_story(directory: Path, *, keep_open: bool) -> None:
    """Run the whole demo in ``directory``, which is made anew. Raises what fails; an attack that succeeds is Fatal."""
    out.print(Panel(f"[bold red]{t('software.notice')}[/]", expand=False))
    _fresh(directory)
    started = time.monotonic()
    telling = Telling(steps=16)
    with Stage(directory) as stage:
        with telling.progress:
            scene, sql, python = _main_job(telling, stage, directory)
            refusals = _attacks(telling, scene)
        _results(directory, sql, python)
        _show_refusals(refusals)
        out.print(t("demo.done", seconds=round(time.monotonic() - started), directory=directory))
        out.print(f"[bold red]{t('software.notice')}[/]")
        if keep_open:
            out.print(t("demo.open", address=stage.hub_url))
            _wait_for_interrupt()


def _fresh(directory: Path) -> None:
    """Remove an earlier demo's directory, and nothing that a demo did not make."""
    if directory.exists():
        if not (directory / _MARKER).exists():
            raise Misuse(
                "demo.directory",
                f"expected {directory} to be absent or an earlier demo's",
                hint="choose another with --out",
            )
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / _MARKER).touch()


def _main_job(telling: Telling, stage: Stage, directory: Path) -> tuple[Scene, Opened, Opened]:
    cast = Cast(directory=directory)
    with telling.step("data"):
        files = write_hospitals(directory)
        for item in files:
            telling.note(t("demo.rows", name=item.name, rows=item.rows))
    with telling.step("parties"):
        cast.make_parties(files)
    with telling.step("image"):
        measurement = cast.make_enclave()
        telling.note(f"MRENCLAVE {measurement.hex()}")
    with telling.step("hub"):
        client = stage.start_hub()
    with telling.step("seal"):
        for home, item in zip(cast.hospitals, files, strict=True):
            cast.seal_and_upload(client, home, item)
    weaknesses = machine.missing()
    with telling.step("contract"):
        contract = cast.draft(client, log_key(directory / "hub"), weaknesses)
        cast.agreed = cast.publish(client, contract)
        telling.note(t("demo.contract", id=cast.contract))
        write_private(directory / "contract", cast.contract.encode())  # for the notebook
        for layer in weaknesses:
            telling.note(t("contract.weakness", layer=layer))
    with telling.step("start"):
        for home, item in zip(cast.hospitals, files, strict=True):
            stage.start_broker(item.path.parent.name, home.path, cast.collateral)
        stage.start_enclave("enclave", cast.image, cast.platform)
    scene = Scene(stage=stage, cast=cast, client=client, contract=contract, files=files)
    with telling.step("sql"):
        sql = _run(telling, scene, "counts")
    with telling.step("python"):
        python = _run(telling, scene, "survival")
    return scene, sql, python


def _run(telling: Telling, scene: Scene, analysis: str) -> Opened:
    client, cast = scene.client, scene.cast
    agreement = load_agreement(client, cast.contract)
    run = request_run(client, cast.researcher, agreement, cast.analyses[analysis], bindings({}), SystemClock().now())
    started = time.monotonic()

    def tell(kind: str, who: str) -> None:
        what = t(f"run.message.{kind.split('/')[1]}")
        telling.note(f"{time.monotonic() - started:5.2f} s  {what} · {plain(who) or t('run.enclave')}")

    sealed = await_run(client, agreement, run, clock=SystemClock(), seconds=120, tell=tell)
    scene.recorded = _session_of(client, run)
    opened = open_result(client, cast.researcher, sealed, verifiers=with_software)
    write_private(cast.directory / f"{analysis}.kakoi", opened.file)
    return opened


def _session_of(client: HubClient, run: ObjectId) -> Session:
    page = client.feed(kinds=(Session.KIND,), refs={"run": run})
    return Session.decode(client.get_object(page.items[0].id).payload)


def _attacks(telling: Telling, scene: Scene) -> dict[str, tuple[str, str, str]]:
    found: dict[str, tuple[str, str, str]] = {}

    def carry_out(attacks: tuple[tuple[str, Attack], ...]) -> None:
        for name, attack in attacks:
            with telling.step(f"attack.{name}"):
                refusal = attack(scene)
            found[name] = (refusal.who, refusal.rule, refusal.code)

    scene.stage.stop("enclave")
    carry_out(WITHOUT_ENCLAVE)
    with telling.step("restart"):
        scene.stage.start_enclave("enclave", scene.cast.image, scene.cast.platform)
    carry_out(WITH_ENCLAVE)
    return found


def _results(directory: Path, sql: Opened, python: Opened) -> None:
    out.print(t("demo.held", numbers=show.show_counts(sql.verified)))
    if not show.show_comparison(show.computed(python.verified)):
        raise Fatal(
            "demo.numbers", "expected the published numbers, got others", hint="this is a bug: please report it"
        )
    for path in show.draw_curves(python.verified, directory):
        out.print(t("run.written", path=path))
    show_verified(python.verified)
    out.print(t("demo.verify", path=directory / "survival.kakoi"))


def _show_refusals(refusals: dict[str, tuple[str, str, str]]) -> None:
    table = Table(title=t("demo.attacks"), title_justify="left")
    for heading in ("demo.attack", "demo.refused-by", "demo.rule", "demo.code"):
        table.add_column(t(heading), overflow="fold")
    for name, (who, rule, code) in refusals.items():
        table.add_row(t(f"demo.step.attack.{name}"), plain(who), plain(rule), code)
    out.print(table)


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
