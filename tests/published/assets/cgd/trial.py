"""Lines G1 to G4: Gallin et al. 1991, abstract."""

from lifelines.statistics import logrank_test


def analyse(tables, parameters):
    """Counts of people are of different ids; the keyed form of an id is enough for that."""
    frame = tables["cgd"]
    ill = frame[frame["status"] == 1]
    first = frame[frame["enum"] == 1]
    arms = [first[first["treat"] == arm] for arm in ("placebo", "rIFN-g")]
    days = [arm["tstop"].to_numpy("float64") for arm in arms]
    infected = [arm["status"].to_numpy("float64") for arm in arms]
    p = logrank_test(days[0], days[1], infected[0], infected[1]).p_value
    return {
        "g1": frame.groupby("treat", as_index=False).agg(patients=("id", "nunique")),
        "g2": ill.groupby("treat", as_index=False).agg(patients=("id", "nunique"), infections=("status", "sum")),
        "g4": {"log_rank_p": p, "patients": frame["id"].nunique(), "basis": first["id"].nunique()},
    }
