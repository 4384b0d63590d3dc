"""Lines of THREAT_MODEL.md that the red team does not try, each with the reason. A test holds both against each other.

Whatever is neither an attack nor here makes the test fail: a new threat is tried from outside, or somebody writes down why not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import Final

_LIES_OF_THE_HUB: Final = (
    "the attacker is the hub itself: what clients do with its lies is in their code, which `make test` attacks"
)
_ENCLAVE: Final = (
    "needs a whole run in the deployment's own enclaves: the red team's contracts accept its own software platform only"
)
_ROOT: Final = "needs root on the enclave's machine, and reads memory that belongs to others' sessions"
_HOME: Final = "needs the files of a party's own machine, which the red team must not have"
_PEOPLE: Final = "needs a person of a real party, signed in with a passkey"
_VENDOR: Final = "the attacker is a vendor's or attestation service that answers a real owner's broker"
_LONG: Final = "needs a job that runs for longer than its lease in the deployment's own enclaves"
_RUNS: Final = "needs several released results of real data, which use up their owners' budgets"
_SEALED: Final = "needs sealed code in the deployment's own enclaves, and its owner's broker"
_PRESS: Final = "uses up disk or places that others need, and cannot be taken back"
_OPERATORS: Final = "needs the operators' own identity provider, or a session of one of them"
_MACHINE: Final = "happens on the machine of the person who previews, with no server in between"

_REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    _LIES_OF_THE_HUB: ("T11", "T12", "T21", "T49", "T50", "T155"),
    _ENCLAVE: ("T10", "T24", "T25", "T67", "T68", "T140", "T160", "T161", "T186"),
    _ROOT: ("T60", "T61"),
    _HOME: ("T17", "T18", "T104", "T150", "T151", "T156"),
    _PEOPLE: (
        *("T40", "T41", "T42", "T43", "T44", "T45", "T47", "T48", "T51", "T55", "T57", "T58", "T59"),
        *("T101", "T102", "T103", "T105", "T185"),
    ),
    _VENDOR: ("T70", "T71", "T72", "T73", "T74", "T75", "T76"),
    _LONG: ("T62", "T63", "T64", "T65", "T66"),
    _RUNS: (
        *("T80", "T81", "T82", "T83", "T84", "T85", "T86", "T87", "T88", "T89"),
        *("T390", "T391", "T392", "T393", "T394", "T395", "T396"),
    ),
    _SEALED: ("T165", "T166", "T167", "T168", "T169"),
    _PRESS: ("T141", "T142", "T147"),
    _OPERATORS: ("T136", "T137", "T138", "T139"),
    _MACHINE: ("T100",),
    "evidence that is refused is tried as T01 to T04; that somebody is told is looked for in the party's own stream": (
        "T153",
    ),
    "needs a second hub on the same database, which most deployments do not have": ("T188",),
    "happens by mistake on a machine of one's own: `kakoi doctor` there, and the client's own posture, say so": (
        "T184",
        "T189",
    ),
    "needs a machine in a network, or with a certificate, that this hub's operator or its indicators name": (
        *("T133", "T134", "T182", "T183", "T190"),
    ),
}


def _pairs() -> Iterator[tuple[str, str]]:
    return chain.from_iterable(zip(threats, repeat(reason), strict=False) for reason, threats in _REASONS.items())


LEFT_OUT: Final[Mapping[str, str]] = dict(_pairs())
