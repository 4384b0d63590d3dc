"""The vendor trains its model, on its own machine and its own (here: invented) people, and writes ``model.pickle``."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

PEOPLE = 3000


def people(seed: int) -> pd.DataFrame:
    """Invented people whose blood pressure grows with age and smoking."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": random.integers(20, 90, PEOPLE),
            "sex": random.choice(["F", "M"], PEOPLE),
            "smoker": random.choice(["no", "yes"], PEOPLE, p=[0.7, 0.3]),
        }
    )
    frame["pressure"] = 112 + 0.15 * frame["age"] + 5.0 * (frame["smoker"] == "yes") + random.normal(0, 5, PEOPLE)
    return frame


def main() -> None:
    """Fit, and write what will be sealed."""
    frame = people(seed=7)
    columns = ColumnTransformer([("labels", OneHotEncoder(), ["sex", "smoker"])], remainder="passthrough")
    boosting = GradientBoostingClassifier(n_estimators=80, max_depth=2, random_state=7)
    model = Pipeline([("columns", columns), ("boosting", boosting)])
    model.fit(frame[["age", "sex", "smoker"]], frame["pressure"] >= 122)
    with open(sys.argv[1], "wb") as file:
        pickle.dump(model, file)


if __name__ == "__main__":
    main()
