"""The one error tree. Five families, by what the person who meets one should do.

    KakoiError
    ├── Malformed     exit 3   the bytes are not what they claim to be: ask the sender
    ├── Refused       exit 4   well-formed, and denied by a rule: ask whoever owns the rule
    ├── Unavailable   exit 5   nobody's fault: try again
    ├── Misuse        exit 2   this program was called wrongly: read the hint
    └── Fatal         exit 6   the state is not known: stop, and let a person look

Every error has a stable ``code`` (dotted, lower case), a message that states what was expected and
what came instead, and a hint with the next step. Foreign parts of a message (a name in a certificate, a hub's words) lose
what could steer a terminal. No message holds a secret, a cell of anybody's data or
a number computed from one. Nothing security-relevant returns bool: it raises one of these or returns
what was verified.
"""

from __future__ import annotations

import re

from kakoi.core.text import plain

_CODE = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*\Z")


class KakoiError(Exception):
    """Base of everything Kakoi raises on purpose."""

    exit_code = 1

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        if not _CODE.match(code):
            raise ValueError(f"not an error code: {code!r}")
        self.code = code
        self.message = plain(message)
        self.hint = plain(hint)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders (the engine's, a test runner's) whole."""
        return _rebuild, (type(self), self.code, self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class Malformed(KakoiError):
    """Bytes that do not parse, or parse to something their format forbids."""

    exit_code = 3


class Refused(KakoiError):
    """Well-formed input that a rule denies; the message names the rule."""

    exit_code = 4


class Unavailable(KakoiError):
    """A peer, a disk or a network that does not answer now; trying again may help."""

    exit_code = 5


class Misuse(KakoiError):
    """Our caller made a mistake: a wrong argument, a missing file, a call out of order."""

    exit_code = 2


class Fatal(KakoiError):
    """The state on disk or in memory contradicts itself; going on could make it worse."""

    exit_code = 6


def _rebuild(cls: type[KakoiError], code: str, message: str, hint: str) -> KakoiError:
    return cls(code, message, hint=hint)


def cannot_open() -> Refused:
    """The one opaque answer to every secret-dependent failure.

    Wrong key, wrong tag, cut ciphertext and foreign associated data are the same error with the
    same text, so that nobody learns which of them happened.
    """
    return Refused(
        "crypto.cannot-open",
        "the ciphertext does not open: wrong key, or changed on the way",
        hint="check that this is the right file and the right key; if both are, the storage altered it",
    )
