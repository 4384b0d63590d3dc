"""Lines S1 to S4: Strack et al. 2014."""

DIED_OR_HOSPICE = (11, 13, 14, 19, 20, 21)


def analyse(tables, parameters):
    """A patient can have been at several hospitals: the keyed form of the number joins them here and nowhere else."""
    frame = tables["encounters"]
    first = frame.sort_values("encounter_id").drop_duplicates("patient_nbr")
    cohort = first[~first["discharge_disposition_id"].isin(DIED_OR_HOSPICE)]
    patients = frame["patient_nbr"].nunique()
    groups = frame.groupby("readmitted", as_index=False)
    return {
        "s1": {
            "encounters": len(frame),
            "patients": patients,
            "cohort": len(cohort),
            "measured_percent": float((cohort["a1cresult"] != "None").mean() * 100),
            "basis": patients,
        },
        "s2": groups.agg(patients=("patient_nbr", "nunique"), encounters=("encounter_id", "size")),
    }
