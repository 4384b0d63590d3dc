"""The long part of a run, in a thread of its own: fetch, decrypt, compute. Meanwhile the keeper renews leases and can stop it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from kakoi.contract.approve import Agreement
from kakoi.core.errors import KakoiError, Refused, Unavailable
from kakoi.core.ids import BlobId
from kakoi.enclave.gate.cohorts import Earlier, Population
from kakoi.enclave.keeper.data import DataKeys, open_file, sealed_object
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.enclave.keeper.opt_out import Listed, OptOuts, sealed_list
from kakoi.net.client import HubClient
from kakoi.wire.messages import GrantedList, RunRequest
from kakoi.wire.released import Released


class Judged(Protocol):
    """An output that the gate has judged by itself (``gate.release.Judged``)."""

    released: Released

    def populations(self) -> tuple[Population, ...]:
        """Whose numbers it tells."""
        ...

    def against(self, earlier: Earlier) -> Released:
        """What may leave beside everything that left earlier."""
        ...


class Engine(Protocol):
    """Whoever turns plaintext tables into a gated output. The keeper gives it descriptors of sealed memory, and no data key."""

    def compute(
        self,
        agreement: Agreement,
        request: RunRequest,
        opened: Mapping[str, tuple[int, ...]],
        *,
        secret: DataSecret,
        opt_outs: OptOuts,
        seconds: int,
        stopped: Callable[[], bool],
    ) -> Judged:
        """The judged output. ``opened``: descriptors of the plaintext files by manifest id.

        ``stopped`` is asked now and then; once it says yes the job is killed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the work ended: with a gated output, or with the error that ended it."""

    judged: Judged | None = None
    error: KakoiError | None = None
    final: bool = True
    """Whether the error is an answer. Otherwise a peer was away, and another attempt may do better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one run needs. ``keys`` are wiped by the work as soon as the data are decrypted; ``secret`` is its maker's to wipe."""

    hub: HubClient
    engine: Engine
    agreement: Agreement
    request: RunRequest
    keys: DataKeys
    list_keys: DataKeys
    lists: tuple[GrantedList, ...]
    opt_outs: OptOuts
    """Filled here, and counted where the lists are applied."""
    secret: DataSecret
    tell: Callable[[str], None]


class Work:
    """One run's work. ``stopped`` is asked often; once it says yes everything ends soon. ``ended`` gets the end, once."""

    def __init__(self, task: Task, *, stopped: Callable[[], bool], ended: Callable[[Ended], None]) -> None:
        self._task, self._stopped, self._ended = task, stopped, ended
        self._thread = threading.Thread(target=self._run, name="kakoi-work", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until it is over: no plaintext and no key of it is left."""
        self._thread.join()

    def _run(self) -> None:
        try:
            ended = Ended(judged=self._compute())
        except Unavailable as error:
            ended = Ended(error=error, final=False)
        except KakoiError as error:
            ended = Ended(error=error)
        except BaseException as error:  # an error of ours ends this run, and not the enclave
            self._task.tell(f"an error of the enclave itself: {type(error).__name__}")
            ended = Ended(error=Refused("enclave.internal", "the enclave made an error", hint="ask its operator"))
        self._ended(ended)

    def _compute(self) -> Judged:
        task = self._task
        with ExitStack() as stack:
            with task.keys as keys, task.list_keys as list_keys:
                task.tell("has all keys, decrypts")
                opened = self._decrypt(keys, stack)
                self._decrypt_lists(list_keys, stack)
            task.tell("runs the analysis")
            try:
                return task.engine.compute(
                    task.agreement,
                    task.request,
                    opened,
                    opt_outs=task.opt_outs,
                    secret=task.secret,
                    seconds=task.agreement.contract.limits.wall_seconds,
                    stopped=self._stopped,
                )
            except Unavailable as error:
                # A machine that cannot run the engine will not learn it in another attempt: the analyst is told, once.
                raise Refused(error.code, error.message, hint=error.hint) from error

    def _decrypt(self, keys: DataKeys, stack: ExitStack) -> dict[str, tuple[int, ...]]:
        """Descriptors of the plaintext by manifest, of data and of sealed code; ``stack`` closes them."""
        source, agreement = _HubBlobs(self._task.hub, self._stopped), self._task.agreement
        opened: dict[str, tuple[int, ...]] = {}
        for owner in agreement.owners_of(self._task.request.analysis):
            for identity in agreement.keys_of(owner, self._task.request.analysis):
                opened[identity] = self._open(source, identity, keys, stack)
        return opened

    def _open(self, source: _HubBlobs, identity: str, keys: DataKeys, stack: ExitStack) -> tuple[int, ...]:
        sealed, descriptors = sealed_object(self._task.agreement, identity), []
        with keys.key(identity) as key:
            for file in sealed.files:
                descriptors.append(open_file(source, sealed, file, key))
                stack.callback(os.close, descriptors[-1])
        return tuple(descriptors)

    def _decrypt_lists(self, keys: DataKeys, stack: ExitStack) -> None:
        """The owners' lists of people who opted out of the data that this run reads."""
        source, task = _HubBlobs(self._task.hub, self._stopped), self._task
        for item in task.lists:
            sealed = sealed_list(task.agreement, item)
            with keys.key(item.manifest) as key:
                descriptor = open_file(source, sealed, item.file(), key)
            stack.callback(os.close, descriptor)
            task.opt_outs.add(item.manifest, Listed(column=item.column, descriptor=descriptor, name=item.name))


class _HubBlobs:
    """Ciphertext from the hub's storage. Segments are checked by the reader, the whole blob by the client."""

    def __init__(self, hub: HubClient, stopped: Callable[[], bool]) -> None:
        self._hub, self._stopped = hub, stopped

    def blob(self, blob: str, *, size: int) -> Iterator[bytes]:
        for chunk in self._hub.stream_blob(BlobId(blob), most=size):
            if self._stopped():
                raise Refused("sandbox.stopped", "the job was stopped from outside", hint="run it again")
            yield chunk
