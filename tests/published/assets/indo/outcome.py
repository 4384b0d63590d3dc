"""Lines P1 to P4: Elmunzer et al. 2012."""

import pandas as pd
from scipy.stats import fisher_exact


def arms(name, frame):
    """Patients and pancreatitis in each arm."""
    groups = frame.assign(ill=frame["outcome"] == "1_yes").groupby("rx", as_index=False)
    found = groups.agg(patients=("ill", "size"), pancreatitis=("ill", "sum"))
    found["percent"] = 100 * found["pancreatitis"] / found["patients"]
    found.insert(0, "subgroup", name)
    return found


def p(frame):
    """Fisher's exact test of the arms."""
    return float(fisher_exact(pd.crosstab(frame["rx"], frame["outcome"]).to_numpy())[1])


def analyse(tables, parameters):
    """The trial and its subgroups."""
    frame = tables["indo"]
    stent, none = frame[frame["pdstent"] == "1_yes"], frame[frame["pdstent"] == "0_no"]
    parts = {"all": frame, "PD stent": stent, "no PD stent": none, "no suspected SOD": frame[frame["sod"] == "0_no"]}
    return {
        "arms": pd.concat([arms(name, part) for name, part in parts.items()], ignore_index=True),
        "tests": {
            "patients": len(frame),
            "fisher_exact_p": p(frame),
            "pd_stent_fisher_p": p(stent),
            "no_pd_stent_fisher_p": p(none),
            "suspected_sod": 100 * float((frame["sod"] == "1_yes").mean()),
            "basis": min(map(len, parts.values())),
        },
    }
