"""Tests that compare survival between groups (Harrington and Fleming 1982; R's ``survdiff``)."""

import numpy as np
import pandas as pd
from scipy.stats import chi2


def sums(days, died, group, rho):
    """Weighted observed and expected deaths of each group, and their covariance. Weights: pooled survival before the day, to rho."""
    groups = np.unique(group)
    observed, expected = np.zeros(len(groups)), np.zeros(len(groups))
    covariance = np.zeros((len(groups),) * 2)
    survival = 1.0
    for day in np.unique(days[died == 1]):
        at_risk = np.array([np.sum((days >= day) & (group == g)) for g in groups], dtype=float)
        deaths = np.array([np.sum((days == day) & (died == 1) & (group == g)) for g in groups], dtype=float)
        everybody, dead, weight = at_risk.sum(), deaths.sum(), survival**rho
        observed += weight * deaths
        expected += weight * dead * at_risk / everybody
        if everybody > 1:
            share = at_risk / everybody
            spread = dead * (everybody - dead) / (everybody - 1)
            covariance += weight**2 * spread * (np.diag(share) - np.outer(share, share))
        survival *= 1 - dead / everybody
    return groups, observed, expected, covariance


def statistic(observed, expected, covariance):
    """Chi-square with one degree of freedom less than there are groups."""
    gap = (observed - expected)[1:]
    return float(gap @ np.linalg.solve(covariance[1:, 1:], gap))


def table(name, values, column, observed, expected):
    """One row for each group with the patients in it."""
    counts = [int((column == value).sum()) for value in values]
    return pd.DataFrame(
        {name: [int(v) for v in values], "patients": counts, "observed": observed, "expected": expected}
    )


def across_institutions(frame):
    used = frame.dropna(subset=["inst"])
    days, died, inst = used["time"].to_numpy(), used["status"].to_numpy(), used["inst"].to_numpy()
    groups, observed, expected, covariance = sums(days, died, inst, 0.5)
    chisq = statistic(observed, expected, covariance)
    numbers = {"chisq_17": chisq, "p": float(chi2.sf(chisq, len(groups) - 1)), "basis": len(used)}
    return table("inst", groups, used["inst"], observed, expected), numbers


def by_karnofsky(frame):
    used = frame.dropna(subset=["inst", "pat_karno"])
    scores = np.unique(used["pat_karno"].to_numpy())
    observed, expected = np.zeros(len(scores)), np.zeros(len(scores))
    covariance = np.zeros((len(scores),) * 2)
    for _, stratum in used.groupby("inst"):
        parts = sums(stratum["time"].to_numpy(), stratum["status"].to_numpy(), stratum["pat_karno"].to_numpy(), 0.0)
        places = np.searchsorted(scores, parts[0])
        observed[places] += parts[1]
        expected[places] += parts[2]
        covariance[np.ix_(places, places)] += parts[3]
    numbers = {"n": len(used), "chisq_7": statistic(observed, expected, covariance), "basis": len(used)}
    return table("karno", scores, used["pat_karno"], observed, expected), numbers


def analyse(tables, parameters):
    """Lines L4 and L5."""
    frame = tables["lung"].astype({"time": "float64", "status": "float64", "inst": "float64", "pat_karno": "float64"})
    l4_groups, l4 = across_institutions(frame)
    l5_groups, l5 = by_karnofsky(frame)
    return {"l4_groups": l4_groups, "l4": l4, "l5_groups": l5_groups, "l5": l5}
