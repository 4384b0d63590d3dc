"""Telling who was in a regression's data by its residuals (Yeom et al. 2018): whoever was fitted on is fitted better."""

from __future__ import annotations

from typing import Final

import numpy as np

from attacks.disclosure.disclosure_setting import everybody

PARAMETERS: Final = 12
_ROUNDS: Final = 200


def advantage(people: int, random: np.random.Generator) -> float:
    """2 AUC - 1 of the attacker, on average over models of cholesterol that are fitted on so many real patients each."""
    design, outcome = _patients()
    found = []
    for _ in range(_ROUNDS):
        order = random.permutation(len(outcome))
        members, others = order[:people], order[people : 2 * people]
        fitted, *_rest = np.linalg.lstsq(design[members], outcome[members], rcond=None)
        inside = np.abs(outcome[members] - design[members] @ fitted)
        outside = np.abs(outcome[others] - design[others] @ fitted)
        found.append(2 * float((inside[:, None] < outside[None, :]).mean()) - 1)
    return float(np.mean(found))


def _patients() -> tuple[np.ndarray, np.ndarray]:
    """Twelve columns, a constant among them, and cholesterol."""
    kept = everybody().dropna()
    kept = kept[kept["chol"] > 0]
    age, rate = kept["age"].to_numpy(float), kept["thalach"].to_numpy(float)
    columns = [
        np.ones(len(kept)),
        age,
        rate,
        kept["sex"].to_numpy(float),
        age * rate / 100,
        age**2 / 100,
        rate**2 / 100,
    ]
    columns += [(kept["cp"] == place).to_numpy(float) for place in (1, 2, 3)]
    columns += [(kept["num"] == place).to_numpy(float) for place in (1, 2)]
    return np.column_stack(columns), kept["chol"].to_numpy(float)
