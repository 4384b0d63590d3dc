"""The fewest cells to hold back, by an integer program: what the gate's own choice is measured against.

After Fischetti and Salazar (2001), without their cuts: z says which cells are held back; for every cell p that the rules hold back there are
two moves along held-back cells alone, one that makes p larger and one that makes it smaller, which keep every published number. A
table that moves so is as good an explanation of what was published, so p is not known. Moves stay within what counts of rows that are
there can be (none below one) and reach from one to ``least``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import lil_matrix

from kakoi.enclave.gate.complement import Row, equations


def system(rows: Sequence[Row]) -> np.ndarray:
    """One line for each equation: one side less the other is zero."""
    lines = equations(rows)
    matrix = np.zeros((len(lines), len(rows)))
    for line, equation in zip(matrix, lines, strict=True):
        line[list(equation.left)] -= 1
        line[list(equation.right)] += 1
    return matrix


def interval(rows: Sequence[Row], hidden: frozenset[int], place: int) -> tuple[float, float]:
    """Least and most that an attacker's program finds for a held-back count, knowing that none is below one."""
    matrix, people = system(rows), np.array([row.people for row in rows], dtype=float)
    unknown = sorted(hidden)
    known = [i for i in range(len(rows)) if i not in hidden]
    right = -matrix[:, known] @ people[known]
    found = []
    for sign in (1.0, -1.0):
        objective = np.zeros(len(unknown))
        objective[unknown.index(place)] = sign
        solved = linprog(objective, A_eq=matrix[:, unknown], b_eq=right, bounds=(1, None), method="highs")
        found.append(float("inf") if solved.status == 3 else sign * float(solved.fun))
    return found[0], found[1]


def fewest(rows: Sequence[Row], held: frozenset[int], least: int, *, seconds: float = 20) -> int | None:
    """How many cells an optimal choice holds back in all; None if the solver did not finish."""
    matrix, people = system(rows), np.array([row.people for row in rows], dtype=float)
    n, moves = len(rows), [(p, up) for p in sorted(held) for up in (True, False)]
    most = float(people.max()) + least
    size = n + n * len(moves)
    equal = lil_matrix((matrix.shape[0] * len(moves), size))
    limits = lil_matrix((2 * n * len(moves), size))
    lower, upper = np.full(size, -most), np.full(size, most)
    lower[:n], upper[:n] = 0, 1
    for p in held:
        lower[p] = 1
    for number, (p, up) in enumerate(moves):
        first = n + number * n
        equal[number * matrix.shape[0] : (number + 1) * matrix.shape[0], first : first + n] = matrix
        lower[first : first + n] = 1 - people
        wanted = max(1.0, least - people[p]) if up else 1 - people[p]
        lower[first + p] = upper[first + p] = wanted
        for i in range(n):
            row = 2 * (number * n + i)
            limits[row, first + i], limits[row, i] = 1, -most  # move <= most * z
            limits[row + 1, first + i], limits[row + 1, i] = -1, -most
    solved = milp(
        np.concatenate([np.ones(n), np.zeros(size - n)]),
        constraints=[
            LinearConstraint(equal.tocsr(), 0, 0),
            LinearConstraint(limits.tocsr(), -np.inf, 0),
        ],
        bounds=Bounds(lower, upper),
        integrality=np.concatenate([np.ones(n), np.zeros(size - n)]),
        options={"time_limit": seconds},
    )
    return round(float(solved.fun)) if solved.status == 0 else None
