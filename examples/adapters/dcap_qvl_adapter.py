"""Bare dcap-qvl behind Kakoi's adapter protocol (docs/conformance.md): what a program gets that only calls ``verify``.

Needs nothing but the package dcap-qvl. Try it:

    kakoi conformance --adapter "python examples/adapters/dcap_qvl_adapter.py" --kind sgx --kind tdx --layer verify

One trial a line comes in, one answer a line goes out. An adapter for another verifier is this file with another
``judge``.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import dcap_qvl

TEXTS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "tcb_info", "qe_identity_issuer_chain", "qe_identity")
BINARY = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")


def answer(outcome: str, reason: str = "") -> dict[str, str]:
    """One answer."""
    return {"outcome": outcome, "reason": reason[:2000]}


def judge(trial: dict[str, Any]) -> dict[str, str]:
    """Ask dcap-qvl. It appraises nothing: policy and report data of the trial are not looked at."""
    if trial["format"] not in ("sgx", "tdx"):
        return answer("unsupported", "dcap-qvl verifies SGX and TDX quotes")
    parts = {part["name"]: base64.b64decode(part["data"]) for part in trial["collateral"]["parts"]}
    quote = base64.b64decode(trial["evidence"]["statement"])
    root = base64.b64decode(trial["anchors"][0]["certificate"])
    try:
        collateral = dcap_qvl.QuoteCollateralV3(
            **{name: parts[name].decode() for name in TEXTS}, **{name: parts[name] for name in BINARY}
        )
    except (KeyError, UnicodeDecodeError) as error:
        return answer("refused", f"collateral: {error!r}")
    try:
        report = dcap_qvl.verify_with_root_ca(quote, collateral, root, trial["now"])
    except ValueError as error:
        return answer("refused", (str(error).splitlines() or ["refused"])[0])
    return answer("accepted", report.status)


def main() -> None:
    """Answer until there are no more trials."""
    for line in sys.stdin:
        print(json.dumps(judge(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
