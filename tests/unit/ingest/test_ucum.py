"""UCUM: units that clinical files use, and what people write instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Malformed
from kakoi.sdk.ingest.ucum import require_unit

GOOD = [
    *("mg/dL", "mm[Hg]", "kg/m2", "10*9/L", "10*3/uL", "/min", "mL/min/{1.73_m2}", "meq/L", "[IU]/mL", "m[IU]/L", "1"),
    *("mmol/L", "%", "{score}", "a", "d", "mo", "wk", "h", "Cel", "[degF]", "ug/mL", "kg.m/s2", "/[HPF]", "mg/(kg.d)"),
    *(
        "cm[H2O]",
        "mosm/kg",
        "U/L",
        "[lb_av]",
        "[in_i]",
        "10*-3",
        "umol/min/g",
        "g/L{creat}",
        "{cells}/uL",
        "[pH]",
        "pg",
    ),
]
BAD = [
    *(
        "mmHg",
        "years",
        "IU",
        "mg/dl.",
        "mg//dL",
        "(mg",
        "mg)",
        "mg(dL)",
        "foo",
        "mg/",
        ".",
        "kkg",
        "µg",
        "m²",
        "Kg",
        "",
    ),
    *(
        "[foo]",
        "{x",
        "}{",
        "mg dL",
        "mg{a",
        "kg-2-",
        "2min",
        "m01",
        "k%",
        "k[in_i]",
        "()",
        "mg{a}{b",
        "[",
        "]",
        "10*",
        "+",
    ),
]


@pytest.mark.parametrize("unit", GOOD)
def test_units(unit: str) -> None:
    require_unit(unit)


@pytest.mark.parametrize("unit", [u for u in BAD if u != "10*"])
def test_no_units(unit: str) -> None:
    with pytest.raises(Malformed) as caught:
        require_unit(unit)
    assert caught.value.code in {"ucum.unit", "ucum.characters"}
    assert caught.value.hint


@pytest.mark.parametrize(("written", "meant"), [("mmHg", "mm[Hg]"), ("years", "a"), ("µg", "ug"), ("bpm", "/min")])
def test_usual_slips_are_named_and_their_correction_is_right(written: str, meant: str) -> None:
    with pytest.raises(Malformed) as caught:
        require_unit(written)
    assert caught.value.hint == f"write {meant}"
    require_unit(meant)


@given(st.text(alphabet=st.sampled_from([*"mgkLd/.(){}[]*^+-0129 aµ"]), max_size=12))
def test_any_text_gives_only_our_errors(unit: str) -> None:
    outcome = "accepted"
    try:
        require_unit(unit)
    except KakoiError as error:
        outcome = error.code
    assert outcome in {"accepted", "ucum.unit", "ucum.characters"}
