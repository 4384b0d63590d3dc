"""Lines V1 and V2: the user guide of scikit-survival, whose ties are Breslow's."""

import pandas as pd
from lifelines.utils import concordance_index
from statsmodels.duration.hazard_regression import PHReg


def analyse(tables, parameters):
    """Coefficients against adenocarcinoma, standard treatment and no therapy before."""
    frame = tables["veteran"]
    terms = pd.DataFrame({"age": frame["age"]})
    for cell in ("large", "smallcell", "squamous"):
        terms[cell] = frame["celltype"] == cell
    terms["karno"] = frame["karno"]
    terms["months"] = frame["diagtime"]
    terms["prior"] = frame["prior"] == 10
    terms["trt"] = frame["trt"] == 2
    terms = terms.astype("float64")
    days, died = frame["time"].to_numpy("float64"), frame["status"].to_numpy("float64")
    found = PHReg(days, terms.to_numpy(), status=died, ties="breslow").fit().params
    numbers = dict(zip(terms.columns, map(float, found), strict=True))
    return {
        "v1": numbers | {"c_index": concordance_index(days, -(terms.to_numpy() @ found), died), "basis": len(frame)}
    }
