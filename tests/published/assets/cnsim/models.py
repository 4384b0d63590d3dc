"""Lines D1 to D7: the expectations in the test suite of DataSHIELD's dsBaseClient."""

import numpy as np
import pandas as pd
import statsmodels.api as sm

QUANTILES = (5, 10, 25, 50, 75, 90, 95)


def logistic(frame):
    """DIS_DIAB ~ GENDER * BMI + HDL over all studies."""
    used = frame.dropna(subset=["diabetes", "gender", "bmi", "lab_hdl"])
    terms = np.column_stack(
        [np.ones(len(used)), used["gender"], used["bmi"], used["gender"] * used["bmi"], used["lab_hdl"]]
    )
    model = sm.GLM(used["diabetes"].to_numpy(), terms, family=sm.families.Binomial()).fit()
    missing = len(frame) - len(used)
    return {
        "nvalid": len(used),
        "nmissing": missing,
        "deviance": model.deviance,
        "df": model.df_resid,
        "basis": len(used),
    }


def linear(frame):
    """LAB_TSC ~ LAB_TRIG: rows used and the residuals' sum of squares."""
    used = frame.dropna(subset=["lab_tsc", "lab_trig"])
    terms = sm.add_constant(used["lab_trig"].to_numpy())
    return len(used), float(sm.OLS(used["lab_tsc"].to_numpy(), terms).fit().ssr)


def of_study(site, frame):
    """One study's linear model. Akaike's criterion counts the variance as a parameter, as R's does."""
    n, squares = linear(frame)
    aic = n * (np.log(2 * np.pi * squares / n) + 1) + 2 * 3
    return {"site": site, "nvalid": n, "aic": aic, "dispersion": squares / (n - 2)}


def spread(site, frame):
    """Quantiles (R's type 7) and the mean of one study's HDL."""
    hdl = frame["lab_hdl"].dropna()
    row = {"site": site, "n": len(hdl)} | {f"q{q}": float(hdl.quantile(q / 100)) for q in QUANTILES}
    return row | {"mean": float(hdl.mean())}


def analyse(tables, parameters):
    """Everything in one run, so that the studies are read once."""
    frame = tables["cnsim"]
    frame = frame.astype({name: "float64" for name in frame.columns if name != "site"})
    studies = list(frame.groupby("site"))
    pooled, squares = linear(frame)
    spreads = pd.DataFrame([spread(site, part) for site, part in studies])
    numbers = [name for name in spreads.columns if name not in ("site", "n")]
    weighted = {name: float(np.average(spreads[name], weights=spreads["n"])) for name in numbers}
    classes = frame.dropna(subset=["bmi_class"]).groupby("bmi_class")["lab_tsc"]
    by_class = classes.agg(n="size", mean="mean", sd="std").reset_index().astype({"bmi_class": int, "n": int})
    missing = [
        {"site": site, "rows": len(part), "lab_tsc_missing": int(part["lab_tsc"].isna().sum())}
        for site, part in studies
    ]
    return {
        "d1": pd.DataFrame(missing),
        "d2": logistic(frame),
        "d3": {"nvalid": pooled, "deviance": squares, "df": pooled - 2, "basis": pooled},
        "d4": pd.DataFrame([of_study(site, part) for site, part in studies]),
        "d5": spreads,
        "d6": weighted | {"basis": int(spreads["n"].sum())},
        "d7": by_class,
    }
