"""Survival of the NCCTG lung cancer patients: what R's ``survival`` documentation prints, from data that nobody shows to anybody.

Columns read: time (days), status (1 died, 0 censored), age, sex (1 male, 2 female), ph_ecog (ECOG performance status).
Fixed here, because packages differ: ties are handled by Efron's method, Kaplan-Meier confidence intervals are of R's
default type "log" (lifelines' own are log-log), the models have no penalty.
"""

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from scipy.stats import norm

GRID = [0, 90, 180, 270, 365, 455, 545, 635, 730, 820, 910]
"""Days at which the curves are told: a curve with steps of its own would tell the day of each death."""


def kaplan_meier(days, died):
    """Survival, Greenwood's standard error and R's "log" 95 % interval after each observed day."""
    fitted = KaplanMeierFitter().fit(days, died)
    events = fitted.event_table
    survival = fitted.survival_function_.iloc[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = events["observed"] / (events["at_risk"] * (events["at_risk"] - events["observed"]))
        relative = np.sqrt(terms.cumsum())
        width = norm.ppf(0.975) * relative
        low, high = survival * np.exp(-width), np.minimum(1.0, survival * np.exp(width))
    return pd.DataFrame({"survival": survival, "error": survival * relative, "low": low, "high": high})


def half(curve):
    """The first day on which a curve is at or below one half; missing if it never is."""
    below = curve.index[curve <= 0.5 + 1e-12]
    return float(below[0]) if len(below) else float("nan")


def score_test(used, covariates):
    """The score test at zero with Efron's ties (Therneau and Grambsch 2000, §3.3)."""
    x, days, died = used[covariates].to_numpy(), used["days"].to_numpy(), used["died"].to_numpy() == 1
    slope, information = np.zeros(x.shape[1]), np.zeros((x.shape[1],) * 2)
    for day in np.unique(days[died]):
        risk, now = x[days >= day], x[(days == day) & died]
        slope += now.sum(axis=0)
        for left in np.arange(len(now)) / len(now):
            size = len(risk) - left * len(now)
            mean = (risk.sum(axis=0) - left * now.sum(axis=0)) / size
            slope -= mean
            information += (risk.T @ risk - left * now.T @ now) / size - np.outer(mean, mean)
    return float(slope @ np.linalg.solve(information, slope))


def cox(frame, covariates):
    """Cox regression: coefficients, standard errors and the usual tests, and how many people they rest on."""
    used = frame[["days", "died", *covariates]].dropna()
    model = CoxPHFitter(penalizer=0.0).fit(
        used, duration_col="days", event_col="died", fit_options={"precision": 1e-12}
    )
    coefficients = model.params_.to_numpy()
    found = {f"{name}_coefficient": model.params_[name] for name in covariates}
    found |= {f"{name}_error": model.standard_errors_[name] for name in covariates}
    return found | {
        "likelihood_ratio": model.log_likelihood_ratio_test().test_statistic,
        "wald": coefficients @ np.linalg.solve(model.variance_matrix_.to_numpy(), coefficients),
        "score": score_test(used, covariates),
        "concordance": model.concordance_index_,
        "basis": len(used),
    }


def analyse(tables, parameters):
    """Kaplan-Meier by ECOG on a grid of days, its medians, and two Cox models."""
    frame = tables["lung"][["time", "status", "age", "sex", "ph_ecog"]].astype("float64")
    frame = frame.rename(columns={"time": "days", "status": "died"})
    curves, medians = [], []
    for ecog, group in frame.dropna(subset=["ph_ecog"]).groupby("ph_ecog"):
        curve = kaplan_meier(group["days"], group["died"])
        told = curve.reindex(GRID, method="ffill")
        told.loc[told.index > group["days"].max()] = float("nan")
        head = {"ph_ecog": int(ecog), "day": GRID, "patients": len(group)}
        curves.append(pd.DataFrame(head, index=told.index).join(told))
        counts = {"ph_ecog": int(ecog), "patients": len(group), "deaths": int(group["died"].sum())}
        medians.append(counts | {name: half(curve[name]) for name in ("survival", "low", "high")})
    return {
        "curves": pd.concat(curves, ignore_index=True),
        "medians": pd.DataFrame(medians).rename(columns={"survival": "median"}),
        "cox_age_sex": cox(frame, ["age", "sex"]),
        "cox_ecog_age": cox(frame, ["ph_ecog", "age"]),
    }
