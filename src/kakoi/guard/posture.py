"""How well a party stands: controls over facts that somebody gathered, each with what was seen, and a score. Pure.

Ids of others: ``azure`` numbers are those of Microsoft's ten security best practices for Azure (Cloud Adoption Framework), ``cis`` the
safeguards of CIS Controls 8.1. A control whose facts are not known is ``unknown``: it is shown, and counts as not passed, because
nobody has shown that it holds. One that does not concern this party is ``not-concerned`` and does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["passed", "failed", "unknown", "not-concerned"]
DAY: Final = 86400
COLLATERAL_DAYS: Final = 30
KEY_DAYS: Final = 2 * 365
RESTORE_DAYS: Final = 180
MINIMUM: Final = 3
"""Fewest rows and people behind a number: DataSHIELD's default."""
EXPORT_LAG: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractFacts:
    """One contract that this party approved, has not withdrawn, and that has not ended."""

    id: str
    platforms: tuple[str, ...]
    floors: tuple[str, ...]
    """Kinds of platforms that are judged without any floor of TCB: neither components nor evaluation number."""
    lax_statuses: tuple[str, ...]
    """TCB statuses besides UpToDate that are accepted."""
    collateral_seconds: int | None
    """The longest age of endorsements that is accepted; None if any age is."""
    minimum_cell: int | None
    minimum_contributors: int | None
    """This owner's own rules; None if it gives no data."""
    weaknesses: tuple[str, ...]
    witnesses: int
    code: tuple[str, ...] = ()
    """Values of the registers that name the code it accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a party or hub. None: nobody could find out."""

    now: int
    role: Literal["party", "hub"]
    devices: dict[str, int] | None = None
    """Passkeys by person."""
    people_on_card: int | None = None
    approvals_required: int | None = None
    contracts: tuple[ContractFacts, ...] | None = None
    collateral_age: int | None = None
    """Age of the endorsements behind the last key release, in seconds."""
    collateral_known: bool = False
    tcb_status: str | None = None
    """TCB status at the last appraisal."""
    keys_since: int | None = None
    listeners: tuple[str, ...] | None = None
    """Addresses beyond loopback on which a program of Kakoi listens without TLS of its own."""
    exports: int | None = None
    export_lag: int | None = None
    restored_at: int | None = None
    chain: str | None = None
    """Empty: whole. Else the code of what is wrong. None: there is no stream."""
    alerts: int | None = None
    """Alerts of level high or above in the last seven days."""
    hours: bool | None = None
    key_beside: bool | None = None
    """Whether what opens the keys lies in the party's own directory."""
    warned_packages: tuple[str, ...] | None = None
    """Packages installed here that an indicator that acts names."""
    unseen: tuple[str, ...] | None = None
    """What the lookout for known weaknesses lacks: advisories that are there and recent, a bill for each image in force."""
    readable: tuple[str, ...] | None = None
    """Secret files that others than their owner can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control."""

    id: str
    azure: int
    cis: str
    weight: int
    roles: tuple[str, ...]
    judge: Callable[[Facts], tuple[State, tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A control and how it stands, with the evidence: ids, names, numbers of settings."""

    control: Control
    state: State
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """All of them. ``score`` is the weight of what passed, in percent of what concerns this party."""

    judged: tuple[Judged, ...]

    @property
    def score(self) -> int:
        """From 0 to 100."""
        counted = [item for item in self.judged if item.state != "not-concerned"]
        total = sum(item.control.weight for item in counted)
        won = sum(item.control.weight for item in counted if item.state == "passed")
        return won * 100 // total if total else 0


_Answer = tuple[State, tuple[str, ...]]
_UNKNOWN: Final[_Answer] = ("unknown", ())


def _found(bad: Sequence[str], good: Sequence[str] = ()) -> _Answer:
    return ("failed", tuple(bad)) if bad else ("passed", tuple(good))


def _contracts(facts: Facts, bad: Callable[[ContractFacts], Sequence[str]]) -> _Answer:
    if facts.contracts is None:
        return _UNKNOWN
    if not facts.contracts:
        return "not-concerned", ()
    return _found([f"{c.id[:12]}: {what}" for c in facts.contracts for what in bad(c)])


def _two_passkeys(facts: Facts) -> _Answer:
    if facts.devices is None:
        return _UNKNOWN
    few = [f"{name}: {count}" for name, count in sorted(facts.devices.items()) if count < 2]
    return _found(few or ([] if facts.devices else ["0"]))


def _two_people(facts: Facts) -> _Answer:
    if facts.people_on_card is None or facts.approvals_required is None:
        return _UNKNOWN
    told = f"{facts.approvals_required}/{facts.people_on_card}"
    return _found([told] if facts.approvals_required < 2 or facts.people_on_card < 2 else [], [told])


def _hardware(facts: Facts) -> _Answer:
    return _contracts(facts, lambda c: ["software"] if "software" in c.platforms else [])


def _collateral(facts: Facts) -> _Answer:
    limit = COLLATERAL_DAYS * DAY
    state, evidence = _contracts(
        facts,
        lambda c: (
            ["any age"]
            if c.collateral_seconds is None
            else [f"{c.collateral_seconds // DAY} d"] * (c.collateral_seconds > limit)
        ),
    )
    if facts.collateral_known and (facts.collateral_age is None or facts.collateral_age > limit):
        age = "no date" if facts.collateral_age is None else f"{facts.collateral_age // DAY} d"
        return "failed", (*evidence, age)
    return state, evidence


def _floor(facts: Facts) -> _Answer:
    state, evidence = _contracts(facts, lambda c: [*c.floors, *c.lax_statuses])
    if facts.tcb_status not in (None, "UpToDate", "ok", ""):
        return "failed", (*evidence, str(facts.tcb_status))
    return state, evidence


def _thresholds(facts: Facts) -> _Answer:
    def weak(contract: ContractFacts) -> list[str]:
        rules = {"minimum_cell": contract.minimum_cell, "minimum_contributors": contract.minimum_contributors}
        return [f"{name} {value}" for name, value in rules.items() if value is not None and value < MINIMUM]

    if facts.contracts and all(c.minimum_cell is None for c in facts.contracts):
        return "not-concerned", ()
    return _contracts(facts, weak)


def _witness(facts: Facts) -> _Answer:
    return _contracts(facts, lambda c: ["0"] if c.witnesses == 0 else [])


def _layers(facts: Facts) -> _Answer:
    return _contracts(facts, lambda c: c.weaknesses)


def _rotation(facts: Facts) -> _Answer:
    if facts.keys_since is None:
        return _UNKNOWN
    days = (facts.now - facts.keys_since) // DAY
    return _found([f"{days} d"] if days > KEY_DAYS else [], [f"{days} d"])


def _listeners(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.listeners is None else _found(facts.listeners)


def _exported(facts: Facts) -> _Answer:
    if facts.exports is None:
        return _UNKNOWN
    if facts.exports == 0:
        return "failed", ("0",)
    lag = facts.export_lag or 0
    return _found([f"-{lag}"] if lag > EXPORT_LAG else [], [str(facts.exports)])


def _restored(facts: Facts) -> _Answer:
    if facts.restored_at is None:
        return "failed", ("never",)
    days = (facts.now - facts.restored_at) // DAY
    return _found([f"{days} d"] if not 0 <= days <= RESTORE_DAYS else [], [f"{days} d"])


def _chain(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.chain is None else _found([facts.chain] if facts.chain else [])


def _alerts(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.alerts is None else _found([str(facts.alerts)] if facts.alerts else [], ["0"])


def _hours(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.hours is None else _found([] if facts.hours else ["guard.toml"])


def _key_apart(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.key_beside is None else _found(["key"] if facts.key_beside else [])


def _packages(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.warned_packages is None else _found(facts.warned_packages)


def _lookout(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.unseen is None else _found(facts.unseen)


def _private(facts: Facts) -> _Answer:
    return _UNKNOWN if facts.readable is None else _found(facts.readable)


_PARTY: Final = ("party",)
_BOTH: Final = ("party", "hub")
CONTROLS: Final = (
    Control(id="people-two-passkeys", azure=6, cis="6.3", weight=8, roles=_PARTY, judge=_two_passkeys),
    Control(id="two-people-approve", azure=3, cis="6.8", weight=8, roles=_PARTY, judge=_two_people),
    Control(id="protected-by-hardware", azure=10, cis="16.1", weight=10, roles=_PARTY, judge=_hardware),
    Control(id="fresh-endorsements", azure=5, cis="7.4", weight=6, roles=_PARTY, judge=_collateral),
    Control(id="tcb-floor", azure=5, cis="7.3", weight=8, roles=_PARTY, judge=_floor),
    Control(id="isolation-layers", azure=7, cis="4.1", weight=6, roles=_PARTY, judge=_layers),
    Control(id="disclosure-thresholds", azure=5, cis="3.3", weight=8, roles=_PARTY, judge=_thresholds),
    Control(id="log-witness", azure=8, cis="8.10", weight=5, roles=_PARTY, judge=_witness),
    Control(id="key-rotation", azure=9, cis="5.2", weight=4, roles=_PARTY, judge=_rotation),
    Control(id="key-apart", azure=10, cis="3.11", weight=6, roles=_PARTY, judge=_key_apart),
    Control(id="secrets-private", azure=10, cis="3.3", weight=8, roles=_BOTH, judge=_private),
    Control(id="no-open-listeners", azure=7, cis="4.8", weight=6, roles=_BOTH, judge=_listeners),
    Control(id="events-whole", azure=8, cis="8.2", weight=6, roles=_BOTH, judge=_chain),
    Control(id="events-exported", azure=8, cis="8.9", weight=6, roles=_BOTH, judge=_exported),
    Control(id="alerts-looked-after", azure=4, cis="13.1", weight=5, roles=_BOTH, judge=_alerts),
    Control(id="no-warned-packages", azure=5, cis="7.5", weight=6, roles=_BOTH, judge=_packages),
    Control(id="weaknesses-looked-for", azure=5, cis="7.1", weight=5, roles=_PARTY, judge=_lookout),
    Control(id="release-hours", azure=8, cis="13.11", weight=2, roles=_PARTY, judge=_hours),
    Control(id="backup-restored", azure=4, cis="11.5", weight=6, roles=_BOTH, judge=_restored),
)


def stand(facts: Facts) -> Posture:
    """Every control that concerns this kind of program, judged."""
    return Posture(
        judged=tuple(
            Judged(control=control, state=state, evidence=evidence)
            for control in CONTROLS
            if facts.role in control.roles
            for state, evidence in (control.judge(facts),)
        )
    )
