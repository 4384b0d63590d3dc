"""Is this run request within the contract? The same answer at the analyst, at each broker and inside the enclave."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NoReturn

from kakoi.contract.approve import Agreement
from kakoi.contract.model import Analysis, Parameter
from kakoi.contract.sign import Signed, open_signed, require_signer
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Refused
from kakoi.wire.messages import Binding, RunRequest


def open_request(envelope: Envelope, agreement: Agreement) -> Signed[RunRequest]:
    """A run request that its contract allows.

    1. signed by the party it names, which is an analyst of the contract;
    2. of this contract and of an analysis that it names;
    3. with exactly the declared parameters, each within its declared limits.

    Raises Malformed or Refused.
    """
    claimed = RunRequest.decode(envelope.payload)
    roles = {p.party: p.roles for p in agreement.contract.parties}.get(claimed.party, ())
    if "analyst" not in roles:
        raise Refused("request.role", "expected a run request of an analyst of the contract, got one of another party")
    card = agreement.cards[claimed.party]
    signed = open_signed(RunRequest, envelope, card)
    require_signer(signed.record.party, card, "a run request")
    if signed.record.contract != agreement.id:
        raise Refused("request.contract", "expected a run request of this contract, got one of another")
    agreement.max_runs(signed.record.analysis)
    check_parameters(agreement.analyses[signed.record.analysis].record, signed.record.parameters)
    return signed


def setting_of(request: RunRequest, lists: Iterable[str] = ()) -> str:
    """What stands for an analysis with its parameters: the same whoever asks, under whatever contract.

    ``lists``: names of lists of opt-outs that the run was granted with, one owner's or everybody's. Another list is another setting: between two results of
    one analysis stand exactly the people who opted out.
    """
    bindings = sorted((binding.name, str(binding.value)) for binding in request.parameters)
    parts = [part.encode() for binding in bindings for part in binding]
    without = [part for name in sorted(lists) for part in (b"opt-outs", bytes.fromhex(name))]
    return sha256(framed(b"kakoi/setting/v1", bytes.fromhex(request.analysis), *parts, *without)).hex()


def check_parameters(analysis: Analysis, bindings: tuple[Binding, ...]) -> None:
    """Raise Refused unless ``bindings`` gives every declared parameter once, within its limits, and no other."""
    given = {binding.name: binding.value for binding in bindings}
    declared = {parameter.name for parameter in analysis.parameters}
    if len(given) != len(bindings) or set(given) != declared:
        raise Refused(
            "request.parameters",
            f"expected exactly the parameters {', '.join(sorted(declared)) or '(none)'}",
            hint="kakoi contract show lists them with their limits",
        )
    for parameter in analysis.parameters:
        _within(parameter, given[parameter.name])


def _within(parameter: Parameter, value: str | int) -> None:
    if parameter.type == "string":
        if value not in parameter.choices:
            _outside(parameter, "one of " + ", ".join(parameter.choices))
        return
    if parameter.type == "integer" and not isinstance(value, int):
        _outside(parameter, "an integer")
    number = _number(parameter, value)
    low, high = parameter.minimum, parameter.maximum
    if low is None or high is None:
        _outside(parameter, "limits in the contract; a number without limits is never accepted")
    if not Decimal(low) <= number <= Decimal(high):
        _outside(parameter, f"a value from {low} to {high}")


def _number(parameter: Parameter, value: str | int) -> Decimal:
    text = str(value)
    digits = text.removeprefix("-").replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit()) or text.endswith(".") or text.lstrip("-").startswith("."):
        _outside(parameter, "a decimal number")
    return Decimal(text)


def _outside(parameter: Parameter, expected: str) -> NoReturn:
    raise Refused(
        "request.parameter-range",
        f"parameter {parameter.name}: expected {expected}",
        hint="choose a value within the contract, or ask the parties to amend it",
    )
