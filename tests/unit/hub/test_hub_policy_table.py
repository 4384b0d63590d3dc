"""Who may do what, as a generated table: every principal x every action x what an object is x the state of its run x what is demanded.

What is expected is said here a second time, in Python and by other means than Cedar: ``allowed`` is what we mean, the policies are what
we wrote. ``cases`` of each line of meaning are counted, so that a table that no longer asks anything fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from kakoi.hub.policy import SHIPPED, Policies
from unit.hub.test_hub_policies import ACTS, BUNDLE, CARD, CONTRACT, DEMANDS, DENIAL, GRANT, OPERATORS, SESSION, USE
from unit.hub.test_hub_policies import outcome as asked

WHO = ("newcomer", "party", "enclave", *OPERATORS)
ACTIONS = (*USE, "introduce", "claim", "report", "listEverything", "operate", *ACTS, "noSuchAction")
STATES = ("", "queued", "claimed", "done", "failed", "abandoned")
POSTURES = ("", "new", "old", "lax", "strict")
KINDS = (CARD, CONTRACT, BUNDLE, GRANT, DENIAL, SESSION)


@dataclass(frozen=True)
class Case:
    """One question."""

    who: str
    posture: str
    action: str
    kind: str = ""
    state: str = ""
    shared: bool = False
    own: bool = False
    concerned: bool = False
    software: bool = False

    @property
    def attributes(self) -> dict[str, str | bool] | None:
        names = ("kind", "state", "shared", "own", "concerned", "software")
        return {name: getattr(self, name) for name in names} if self.kind else None


def table() -> Iterator[Case]:
    """Actions on the hub under every posture; puts and gets of every object in every state."""
    for who, action, posture in product(WHO, ACTIONS, POSTURES):
        yield Case(who=who, posture=posture, action=action)
    truths = list(product((False, True), repeat=3))
    for who, action, kind, (shared, own, concerned) in product(WHO, ("put", "get"), KINDS, truths):
        for state, posture, software in (
            *product(STATES, ("",), (False,)),
            ("", "strict", True),
            ("", "strict", False),
        ):
            yield Case(who, posture, action, kind, state, shared, own, concerned, software)


def allowed(case: Case) -> str:
    """Why it is allowed; empty if it is not."""
    if case.posture == "old" and case.who not in OPERATORS:
        return ""
    if case.posture == "lax" or (case.posture == "strict" and case.software and case.action == "put"):
        return ""
    if case.action == "put" and case.state == "abandoned" and case.kind != DENIAL:
        return ""
    judges = {"newcomer": _newcomer, "party": _party, "enclave": _enclave, "viewer": _viewer}
    return judges.get(case.who, _administrator)(case)


def _viewer(case: Case) -> str:
    return "looks" if case.action == "operate" else ""


def _administrator(case: Case) -> str:
    return "acts" if case.action in ("operate", *ACTS) else ""


def _newcomer(case: Case) -> str:
    if case.action == "put" and case.kind == CARD and case.own:
        return "its own card"
    return "introduces itself" if case.action == "introduce" else ""


def _party(case: Case) -> str:
    if case.action == "put":
        return "what it signed" if case.own else "carries" if case.kind in (CARD, BUNDLE) else ""
    if case.action == "get":
        return "shared" if case.shared else "concerned" if case.concerned else ""
    return "uses the hub" if case.action in USE else ""


def _enclave(case: Case) -> str:
    return "operator's own" if case.action in (*USE, "put", "get", "claim", "report", "listEverything") else ""


def test_the_table() -> None:
    hubs = {words: Policies(SHIPPED, lambda: 1_700_000_000, demands=demands) for words, demands in DEMANDS.items()}
    wrong, why = [], Counter[str]()
    for case in table():
        expected = allowed(case)
        words = f"{case.posture} {case.who}".strip()
        if asked(hubs[case.posture], words, case.action, case.attributes) != bool(expected):
            wrong.append((case, expected))
        why[expected] += 1
    assert not wrong[:10], len(wrong)
    assert len(why) == 11
    assert min(why.values()) >= 3
    assert why[""] > sum(why.values()) / 2, "most of what can be asked is denied"
