"""A policy is complete or it does not exist: no field can be left out, and what it names must be judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy, Grace, PlatformPolicy, ReferenceValue, Setting, Unchecked
from kakoi.attest.report import Component
from kakoi.core import encoding
from kakoi.core.errors import Malformed
from kakoi.testing.dcap_vendor import Vendor
from kakoi.testing.dcap_vendor_corpus import verify

REASON = Unchecked(reason="the owners know this machine by its serial number")
POLICY = draft(verify(Vendor()), collateral_max_age=86400 * 30)


def changed(**fields: Any) -> PlatformPolicy:
    return replace(POLICY, **fields)


def test_round_trip() -> None:
    policy = AttestationPolicy(accepted=(POLICY,))
    assert AttestationPolicy.decode(policy.encode()) == policy


@pytest.mark.parametrize("field", sorted(encoding.loads(POLICY.encode())))
def test_no_field_can_be_left_out(field: str) -> None:
    value: dict[str, Any] = encoding.loads(POLICY.encode())
    del value[field]
    with pytest.raises(Malformed) as caught:
        PlatformPolicy.decode(encoding.dumps(value))
    assert caught.value.code == "record.missing-field"


@pytest.mark.parametrize("field", ["roots", "measurements", "statuses", "minimum_tcb", "platforms"])
def test_no_list_that_accepts_can_be_empty(field: str) -> None:
    with pytest.raises(Malformed):
        changed(**{field: ()})


def test_a_policy_accepts_something() -> None:
    with pytest.raises(Malformed):
        AttestationPolicy(accepted=())
    with pytest.raises(Malformed):
        AttestationPolicy(accepted=(POLICY, POLICY))
    with pytest.raises(Malformed):
        ReferenceValue(name="mrenclave", accepted=())
    with pytest.raises(Malformed):
        Setting(name="smt", accepted=())


def test_some_measurement_is_judged() -> None:
    skipped = tuple(replace(m, accepted=REASON) for m in POLICY.measurements)
    with pytest.raises(Malformed) as caught:
        replace(POLICY, measurements=skipped)
    assert caught.value.code == "policy.no-measurement"


def test_revoked_cannot_be_accepted() -> None:
    with pytest.raises(Malformed) as caught:
        replace(POLICY, statuses=("UpToDate", "Revoked"))
    assert caught.value.code == "policy.revoked"
    with pytest.raises(Malformed) as caught:
        replace(POLICY, grace=Grace(statuses=("Revoked",), until=2**31))
    assert caught.value.code == "policy.revoked"


@pytest.mark.parametrize("field", ["measurements", "settings"])
def test_names_appear_once(field: str) -> None:
    items = getattr(POLICY, field)
    with pytest.raises(Malformed):
        changed(**{field: (*items, items[0])})
    with pytest.raises(Malformed):
        replace(POLICY, minimum_tcb=(Component(name="pce", version=1),) * 2)


def test_a_reason_says_something() -> None:
    with pytest.raises(Malformed):
        Unchecked(reason="no")
