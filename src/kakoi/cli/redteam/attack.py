"""What an attack is, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from kakoi.core.errors import Fatal, KakoiError, Malformed, Misuse, Refused

Role = Literal["outsider", "network", "storage", "analyst", "owner", "operator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)


class NotTried(Exception):
    """Something that this attack needs is not here; the text says what."""


class Through(Exception):
    """The attack went through; the text says what was got."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack. ``carry_out`` returns what repelled it, or raises ``Through`` or ``NotTried``."""

    name: str
    role: Role
    threat: str
    """The line of THREAT_MODEL.md."""
    carry_out: Callable[[Any], str]
    also: tuple[str, ...] = ()
    """Other lines that the same attempt is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an attack: by what it was repelled, what was got, or why it was not tried."""

    attack: Attack
    state: Literal["repelled", "not-repelled", "not-tried"]
    detail: str


def tried(attack: Attack, ground: Any) -> Outcome:
    """Carry one attack out on a ``ground.Ground``. An error that nobody expected is told as an attack that was not tried, never as repelled."""
    try:
        return Outcome(attack=attack, state="repelled", detail=attack.carry_out(ground))
    except Through as got:
        return Outcome(attack=attack, state="not-repelled", detail=str(got))
    except NotTried as why:
        return Outcome(attack=attack, state="not-tried", detail=str(why))
    except KakoiError as error:
        return Outcome(attack=attack, state="not-tried", detail=f"{error.message} [{error.code}]")


def repelled_by(work: Callable[[], object], *codes: str) -> str:
    """The code with which ``work`` is refused: one of ``codes``, if any are named. Raises ``Through`` if it is not.

    Only a repelled_by counts. A hub that does not answer has repelled nothing.
    """
    try:
        work()
    except (Refused, Malformed) as error:
        if codes and error.code not in codes:
            raise Through(f"refused, but for another reason: {error.code}") from None
        return error.code
    except (Misuse, Fatal) as error:
        raise NotTried(f"{error.message} [{error.code}]") from None
    raise Through("accepted")


def quietly(work: Callable[[], object]) -> None:
    """Clean up as far as that is possible."""
    with suppress(KakoiError, OSError):
        work()
