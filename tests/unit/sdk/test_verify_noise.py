"""What a passport says about noise is held against the contract and what was granted, whoever signed it."""

from __future__ import annotations

import pytest

from kakoi.attest.software.admit import with_software
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.sdk.verify import verify_result
from kakoi.wire.messages import RunRequest
from kakoi.wire.release import noise_id
from support.resigned import Whole

RULE = "differential-privacy epsilon=0.5 rows-per-person=1"
OTHER = ObjectId("5" * 64)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("noisy") / "platform", epsilon="0.5")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("plain") / "platform")


def belongs(whole: Whole) -> ObjectId:
    return noise_id(whole.agreement, RunRequest.decode(whole.request.payload), [])


def says(whole: Whole, asked: tuple[str, ObjectId | None], *noised: str) -> str:
    """What a verifier proves of the noise, in words. Raises what it refuses."""
    whole.asked, whole.noised = asked, noised
    verified = verify_result(whole.file().encode(), verifiers=with_software)
    return " ".join(str(item) for item in verified.proven if "differential privacy" in str(item))


def test_the_noise_that_the_contract_demands_is_said(noisy: Whole, plain: Whole) -> None:
    assert "at most ε = 0.5" in says(noisy, ("0.5", belongs(noisy)), RULE, "discrete-laplace epsilon=1/4")
    assert says(plain, ("none", None)) == ""


def test_bad_twins(noisy: Whole, plain: Whole) -> None:
    """No noise, less, that of another question, a gate that says nothing or something else: each refused, though signed well."""
    for whole, asked, noised in (
        (noisy, ("none", None), (RULE,)),
        (noisy, ("0.50", belongs(noisy)), (RULE,)),
        (noisy, ("5", belongs(noisy)), (RULE,)),
        (noisy, ("0.5", OTHER), (RULE,)),
        (noisy, ("0.5", belongs(noisy)), ()),
        (noisy, ("0.5", belongs(noisy)), (RULE.replace("0.5", "5"),)),
        (noisy, ("0.5", belongs(noisy)), (RULE.replace("person=1", "person=9"),)),
        (plain, ("0.5", OTHER), ()),
        (plain, ("none", None), (RULE,)),
    ):
        with pytest.raises(Refused) as caught:
            says(whole, asked, *noised)
        assert caught.value.code == "passport.contradiction"
