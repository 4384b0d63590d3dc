"""The clean room from a notebook: connect, open a contract, run, get DataFrames.

room = Room.connect("http://127.0.0.1:8440", "analyst/party", key_file="analyst/key")
contract = room.contract("1f3c…")
result = contract.run("counts")
result["counts"]            # a pandas DataFrame
print(result.proof)         # what is proven, and what is not
"""

from __future__ import annotations

import inspect
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kakoi.attest.software.admit import with_software
from kakoi.attest.software.verify import LABEL
from kakoi.contract.approve import Agreement
from kakoi.contract.model import Analysis, ContractAnalysis, Output, Parameter, TableUse
from kakoi.contract.sign import seal
from kakoi.core.errors import Misuse
from kakoi.core.ids import ObjectId, PartyId, parse_id
from kakoi.net.client import HubClient
from kakoi.party.files import write_private
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock
from kakoi.sdk.connect import connect
from kakoi.sdk.released import frame, released, statistics
from kakoi.sdk.run import Opened, await_run, bindings, load_agreement, open_result, request_run
from kakoi.wire.released import ReleasedStatistics

if TYPE_CHECKING:
    import pandas as pd


class _Clock:
    def now(self) -> int:
        return int(time.time())


class Room:
    """One party's connection to a hub."""

    def __init__(self, client: HubClient, home: PartyHome) -> None:
        self._client = client
        self._home = home

    @classmethod
    def connect(
        cls, hub: str, party: str | Path, *, passphrase: str | None = None, key_file: str | Path | None = None
    ) -> Room:
        """Open a party's directory and a hub. Raises Misuse or Refused for a wrong directory or key."""
        unlock = Unlock(passphrase=passphrase, key_file=Path(key_file) if key_file is not None else None)
        home = PartyHome.load(Path(party), unlock)
        client = connect(hub, home)
        client.put_object(home.card.envelope)
        return cls(client, home)

    def contract(self, identity: str) -> OpenContract:
        """A contract that everybody approved, with all signatures checked here. Raises Refused if one is missing."""
        return OpenContract(self._client, self._home, load_agreement(self._client, parse_id(identity)))

    def sql(
        self,
        query: str,
        *,
        name: str,
        title: str,
        reads: Mapping[str, Sequence[str]],
        output: Output,
        parameters: Sequence[Parameter] = (),
    ) -> ObjectId:
        """Sign and publish an SQL analysis; a contract can then name its id."""
        return self._publish("sql", query, name, title, reads, (output,), parameters)

    def function(
        self,
        analyse: Callable[[Any, Any], Any],
        *,
        name: str,
        title: str,
        reads: Mapping[str, Sequence[str]],
        outputs: Sequence[Output],
        parameters: Sequence[Parameter] = (),
    ) -> ObjectId:
        """Sign and publish a function ``analyse(tables, parameters)`` as an analysis.

        Its source is what is sealed into the contract, so it must be whole: imports inside, nothing from outside.
        Raises Misuse if it is not named ``analyse`` or its source cannot be found.
        """
        if analyse.__name__ != "analyse":
            raise Misuse("sdk.function", "expected a function named analyse", hint="def analyse(tables, parameters): …")
        try:
            source = textwrap.dedent(inspect.getsource(analyse))
        except (OSError, TypeError):
            raise Misuse(
                "sdk.function", "expected a function whose source can be read", hint="write it in a cell or a file"
            ) from None
        return self._publish("python", source, name, title, reads, tuple(outputs), parameters)

    def propose(self, contract: OpenContract, analyses: Mapping[ObjectId, int]) -> ObjectId:
        """The next version of a contract, with more analyses (id: how often each may run); its id.

        Signed by this party as its drafter, and approved by nobody yet: every party reads and signs it (``kakoi contract sign``).
        """
        before = contract.agreement.contract
        more = tuple(ContractAnalysis(analysis=identity, max_runs=runs) for identity, runs in analyses.items())
        draft = replace(
            before,
            version=before.version + 1,
            supersedes=contract.agreement.id,
            drafter=PartyId(self._home.card.id),
            analyses=(*before.analyses, *more),
        )
        envelope = seal(draft, self._home.keys.signer())
        self._client.put_object(envelope)
        return envelope.payload_id

    def _publish(
        self,
        engine: Any,
        source: str,
        name: str,
        title: str,
        reads: Mapping[str, Sequence[str]],
        outputs: tuple[Output, ...],
        parameters: Sequence[Parameter],
    ) -> ObjectId:
        analysis = Analysis(
            author=PartyId(self._home.card.id),
            name=name,
            title=title,
            engine=engine,
            source=source,
            sealed_code=None,
            reads=tuple(TableUse(table=table, columns=tuple(columns)) for table, columns in reads.items()),
            parameters=tuple(parameters),
            outputs=outputs,
        )
        envelope = seal(analysis, self._home.keys.signer())
        self._client.put_object(envelope)
        return envelope.payload_id


class OpenContract:
    """A contract in force, as its analyst sees it."""

    def __init__(self, client: HubClient, home: PartyHome, agreement: Agreement) -> None:
        self._client, self._home = client, home
        self.agreement = agreement

    @property
    def analyses(self) -> dict[str, str]:
        """Titles of the analyses that may run, by name."""
        return {item.record.name: item.record.title for item in self.agreement.analyses.values()}

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """Declared columns by table."""
        return {m.record.table: tuple(c.name for c in m.record.columns) for m in self.agreement.manifests.values()}

    def run(self, analysis: str, *, seconds: int = 600, **parameters: str | int) -> Result:
        """Run an analysis by name and wait for its verified result.

        Raises ``RunDenied`` if an owner refused, Refused if the enclave did, Unavailable after ``seconds``.
        """
        identity = next((ObjectId(i) for i, a in self.agreement.analyses.items() if a.record.name == analysis), None)
        if identity is None:
            raise Misuse("run.analysis", f"expected one of {', '.join(self.analyses)}", hint="see contract.analyses")
        clock = _Clock()
        run = request_run(self._client, self._home, self.agreement, identity, bindings(parameters), clock.now())
        sealed = await_run(self._client, self.agreement, run, clock=clock, seconds=seconds, tell=lambda kind, who: None)
        return Result(open_result(self._client, self._home, sealed, verifiers=with_software))

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<li><b>{escape(name)}</b> {escape(title)}</li>" for name, title in self.analyses.items())
        return f"<p>{escape(self.agreement.contract.title)}</p><ul>{rows}</ul>"


class Result:
    """A verified result: tables as DataFrames, statistics as dictionaries."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._outputs = {output.name: output for output in released(opened.verified).outputs}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self._outputs)

    def __getitem__(self, name: str) -> pd.DataFrame | dict[str, float | None]:
        """An output by name."""
        output = self._outputs[name]
        return statistics(output) if isinstance(output, ReleasedStatistics) else frame(output)

    @property
    def protected_by_hardware(self) -> bool:
        """False for the ``software`` platform, which protects nothing."""
        return self._opened.verified.protected_by_hardware

    @property
    def proof(self) -> str:
        """What the passport proves (✔) and what it does not (○), one line each; first of all if no hardware protects it."""
        verified = self._opened.verified
        lines = [] if verified.protected_by_hardware else [LABEL]
        lines += [f"✔ {said}" for said in verified.proven] + [f"○ {said}" for said in verified.not_proven]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(', '.join(self.names))}</p><pre>{escape(self.proof)}</pre>"

    def save(self, path: str | Path) -> None:
        """Write ``result.kakoi``, which ``kakoi verify`` checks offline. Raises Misuse if the file exists."""
        target = Path(path)
        if target.exists():
            raise Misuse("file.exists", f"expected no {target.name} yet, found one", hint="choose another name")
        write_private(target, self._opened.file)
