"""The vendor's secret: how it scores patients. Only the enclave, and a reviewer the vendor chose, ever read this file."""

import io
import pickle

import pandas as pd
from sklearn.metrics import brier_score_loss, roc_auc_score

SECRET_CUTS = [0.30, 0.61803]


def analyse(tables, parameters, files):
    """How well the risk fits what the hospitals measured: by risk group, and over all patients."""
    model = pickle.load(io.BytesIO(files["model.pickle"]))  # noqa: S301 - the vendor's own, in a sandbox
    visits = tables["visits"].dropna(subset=["pressure"])
    columns = pd.DataFrame({"age": visits["age"].astype(int), "sex": visits["sex"], "smoker": visits["smoker"]})
    risk = model.predict_proba(columns.astype({"sex": object, "smoker": object}))[:, 1]
    high = (visits["pressure"] >= parameters["threshold"]).astype(int).to_numpy()
    group = pd.Series(1 + sum((risk >= cut).astype(int) for cut in SECRET_CUTS), name="risk_group")
    scored = pd.DataFrame({"risk_group": group, "risk": risk, "high": high})
    table = scored.groupby("risk_group", as_index=False).agg(
        patients=("risk", "size"), mean_risk=("risk", "mean"), share_high=("high", "mean")
    )
    return {
        "calibration": table[["risk_group", "patients", "mean_risk", "share_high"]],
        "quality": {
            "auc": float(roc_auc_score(high, risk)),
            "brier": float(brier_score_loss(high, risk)),
            "basis": len(scored),
        },
    }
