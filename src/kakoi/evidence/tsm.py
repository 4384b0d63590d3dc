"""SEV-SNP and TDX guests through configfs-tsm (Linux 6.7 and later).

Source: Linux Documentation/ABI/testing/configfs-tsm-report. A directory below /sys/kernel/config/tsm/report is one
conversation: write ``inblob``, read ``outblob``; ``generation`` counts writes to any attribute, so a count that moved between our
write and our read says that somebody else wrote, and the answer may be to his question.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from kakoi.attest.report import Evidence, Part, PlatformKind
from kakoi.core.errors import Refused
from kakoi.evidence.devices import MAX_ANSWER, Tree, disturbed, no_answer, require_report_data, too_long

ROOT: Final = "/sys/kernel/config/tsm/report"
_ATTEMPTS: Final = 5
_KINDS: Final[dict[str, PlatformKind]] = {"sev_guest": "snp", "tdx_guest": "tdx"}
_WHAT: Final = "configfs-tsm"
_MAX_AUX: Final = 64 * 1024


class TsmProducer:
    """Asks configfs-tsm. ``name`` gives a fresh name for each conversation; ``privilege_level`` is the VMPL to ask for (SNP)."""

    def __init__(
        self, tree: Tree, *, name: Callable[[], str], privilege_level: int | None = None, root: str = ROOT
    ) -> None:
        self._tree, self._name, self._level, self._root = tree, name, privilege_level, root

    def evidence(self, report_data: bytes) -> Evidence:
        """A report over exactly these 64 bytes.

        Raises Unavailable if the device does not answer or is never left alone, Refused for an unknown provider or an oversized answer.
        """
        require_report_data(report_data)
        for _ in range(_ATTEMPTS):
            path = f"{self._root}/{self._name()}"
            try:
                self._tree.make(path)
                try:
                    found = self._ask(path, report_data)
                finally:
                    self._tree.remove(path)
            except OSError as error:
                # EWOULDBLOCK: the kernel itself saw a writer between question and answer. EEXIST: the name is taken.
                if error.errno in (errno.EWOULDBLOCK, errno.EEXIST, errno.EBUSY):
                    continue
                raise no_answer(_WHAT, error) from error
            if found is not None:
                return found
        raise disturbed(_WHAT)

    def _ask(self, path: str, report_data: bytes) -> Evidence | None:
        """The evidence, or None if somebody else wrote meanwhile."""
        tree = self._tree
        if self._level is not None:
            tree.write(f"{path}/privlevel", str(self._level).encode())
        tree.write(f"{path}/inblob", report_data)
        before = self._generation(path)
        statement = self._read(f"{path}/outblob", MAX_ANSWER)
        auxiliary = self._auxiliary(path)
        provider = self._read(f"{path}/provider", 64).decode("ascii", "replace").strip()
        # Our own writes are the only ones there should ever have been.
        if not before == self._generation(path) == 1 + (self._level is not None):
            return None
        if provider not in _KINDS:
            raise Refused(
                "evidence.provider",
                f"expected a provider of {', '.join(sorted(_KINDS))}, got another",
                hint="this kind of confidential guest is not supported",
            )
        parts = (Part(name="certificates", data=auxiliary),) if auxiliary and _KINDS[provider] == "snp" else ()
        return Evidence(platform=_KINDS[provider], statement=statement, parts=parts)

    def _generation(self, path: str) -> int:
        text = self._read(f"{path}/generation", 32).strip()
        if not text.isdigit():
            raise Refused("evidence.generation", "expected a count in configfs-tsm's generation, got something else")
        return int(text)

    def _auxiliary(self, path: str) -> bytes:
        """The host's certificate table; SNP only, and optional there."""
        try:
            return self._read(f"{path}/auxblob", _MAX_AUX)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENXIO):
                return b""
            raise

    def _read(self, path: str, limit: int) -> bytes:
        data = self._tree.read(path, limit)
        if len(data) > limit:
            raise too_long(_WHAT)
        return data
