"""Carries out the library of disclosure attacks and writes docs/disclosure-attacks.md. Needs the clinical data (KAKOI_SHARED)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from attacks.disclosure.library import ATTACKS, PEOPLE  # noqa: E402 - the tests' own folder comes first

HEAD: Final = f"""# What attacks learn from what leaves

Written by `python scripts/disclosure_doc.py`, which carries them out through the real engine, sandbox and gate (and the owners' ledger, where
results are held against each other) on the four hospitals of the UCI heart disease data. A number is the share of {PEOPLE} real patients about whom
the attacker ends up right, or what the column says. *Off*: rules loosened as far as a contract allows. *On*: the defaults.

| attack | tries | measure | off | on | what stands against it |
|---|---|---|---|---|---|
"""
FOOT: Final = """
`tests/attacks/disclosure/test_attack_library.py` holds these: with the gate off each must succeed, with it on none may learn more than the table says.

**What is left.** Who was in the data of a model can be guessed better than by a coin: the rule on parameters per person lowers the odds and does not end them. An owner who must rule it
out demands [differential privacy](privacy.md), and gets no models. A Python analysis whose source all owners approved can put something into the digits that a rule allows; that is why they read it.

Attacks that no rule turns off, so that there is no *off* to measure, have tests of their own: encodings in NaN payloads, minus zero, column names, order of rows, more rows than declared and made-up labels
(`tests/attacks/sandbox/test_attack_results.py`), queries that fail on one person (`tests/attacks/sql`), noise that is averaged or has holes (`tests/attacks/disclosure/test_attack_noise.py`), opt-outs as a
difference (`tests/attacks/disclosure/test_attack_opt_out_difference.py`), old copies of a ledger (`tests/attacks/disclosure/test_attack_rollback.py`). Pictures are drawn from released numbers only
([ADR 0091](adr/0091-figures-are-drawn-outside.md)).
"""


def main() -> None:
    """Carry out every attack twice and write the page."""
    lines = []
    for attack in ATTACKS:
        off, on = attack.learned(False), attack.learned(True)
        print(f"{attack.name}: off {off:.2f}, on {on:.2f}", file=sys.stderr)
        lines.append(
            f"| `{attack.name}` | {attack.tries} | {attack.measure} | {off:.2f} | {on:.2f} | {attack.rule} |\n"
        )
    (ROOT / "docs/disclosure-attacks.md").write_text(HEAD + "".join(lines) + FOOT, "utf-8")


if __name__ == "__main__":
    main()
