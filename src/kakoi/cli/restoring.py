"""``check-backup``: put a copy back in another place, check it whole, and keep a signed proof that posture reads."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from kakoi.broker.ledger import Ledger
from kakoi.cli.contract import Party
from kakoi.cli.hub_serve import Directory
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, errors_as_exit_codes, open_party, out, unlock
from kakoi.contract.sign import seal
from kakoi.core.crypto import Signer
from kakoi.core.encoding import framed
from kakoi.core.errors import Misuse, Refused
from kakoi.core.ids import ObjectId
from kakoi.guard.restored import FILE, RestoreProof
from kakoi.party.files import write_private
from kakoi.party.home import PartyHome
from kakoi.tlog.merkle import CompactRange, leaf_hash

LARGE: Final = 64 * 1024 * 1024
"""Larger files of a party are ciphertext, which its manifests and storage look after."""
Copy = Annotated[Path, typer.Argument(metavar="COPY", help=t("help.backup-copy"))]


@contextmanager
def _restored(copy: Path, *, large: bool) -> Iterator[Path]:
    """The copy, put back in a place of its own that is removed afterwards."""
    if not copy.is_dir():
        raise Misuse("backup.missing", f"expected the directory of a copy in {copy}, found none", hint="check the path")
    with tempfile.TemporaryDirectory(prefix="kakoi-restored-") as name:
        place = Path(name) / "restored"

        def left(folder: str, names: list[str]) -> list[str]:
            return [] if large else [n for n in names if (p := Path(folder) / n).is_file() and p.stat().st_size > LARGE]

        shutil.copytree(copy, place, ignore=left)
        yield place


def _keep(directory: Path, proof: RestoreProof, signer: Signer) -> None:
    write_private(directory / FILE, seal(proof, signer).encode(), mode=0o644)
    out.print(t("restored.proven", size=proof.size, behind=proof.behind, root=proof.root[:16]))


def hub_check_backup(directory: Directory, copy: Copy) -> None:
    """Restore a copy of a hub elsewhere, open it, check database, log and every blob, and keep a signed proof."""
    from kakoi.hub.hub import open_hub
    from kakoi.hub.log import KEY_FILE
    from kakoi.hub.settings import Settings
    from kakoi.hub.upkeep import check
    from kakoi.hub.watch import event_key

    with errors_as_exit_codes():
        now = check(Settings(directory=directory), blobs=False)
        with _restored(copy, large=True) as place:
            found = check(Settings(directory=place), blobs=True)
            if (place / KEY_FILE).read_bytes() != (directory / KEY_FILE).read_bytes():
                raise _foreign("the key of this hub's log")
            open_hub(Settings(directory=place)).release()
        if found.size > now.size:
            raise _foreign("at most what this hub's log holds")
        proof = RestoreProof(
            of="hub",
            size=found.size,
            root=ObjectId(found.root.hex()),
            behind=now.size - found.size,
            restored_at=SystemClock().now(),
        )
        _keep(directory, proof, event_key(directory))


def party_check_backup(party: Party, copy: Copy, key_file: KeyFile = None) -> None:
    """Restore a copy of a party elsewhere, open its keys, data keys and ledger, and keep a signed proof."""
    with errors_as_exit_codes():
        home = open_party(party, key_file)
        with _restored(copy, large=False) as place:
            back = PartyHome.load(place, unlock(key_file))
            if back.card.record.verifying_key != home.card.record.verifying_key:
                raise _foreign("this party's keys")
            for signed in back.datasets().values():
                back.data_key(signed.record)
            kept, present = _decisions(place), _decisions(party)
        if kept != present[: len(kept)]:
            raise _foreign("the beginning of this party's ledger")
        tree = CompactRange()
        for leaf in kept:
            tree, _ = tree.append(leaf)
        proof = RestoreProof(
            of="party",
            size=len(kept),
            root=ObjectId(tree.root.hex()),
            behind=len(present) - len(kept),
            restored_at=SystemClock().now(),
        )
        _keep(party, proof, home.keys.signer())


def _decisions(directory: Path) -> list[bytes]:
    """Leaves over every decision of a ledger, which opening checks whole."""
    with closing(Ledger(directory / "ledger.sqlite")) as ledger:
        return [
            leaf_hash(framed(b"kakoi/restored-decision/v1", at.to_bytes(8, "big"), body))
            for at, body in ledger.decision_bodies()
        ]


def _foreign(what: str) -> Refused:
    return Refused(
        "backup.foreign",
        f"expected a copy that holds {what}, got another",
        hint="is it a copy of this directory, and was neither put back since?",
    )
