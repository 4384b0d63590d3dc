"""Line N1: R's ``anova(coxph(Surv(edrel, rel) ~ histol + instit))``. Ties by Efron's method."""

from lifelines import CoxPHFitter


def analyse(tables, parameters):
    """Log likelihoods of the null model and of two nested ones, and twice their differences."""
    frame = tables["nwtco"][["edrel", "rel", "instit", "histol"]].astype("float64")
    first = CoxPHFitter().fit(frame[["edrel", "rel", "histol"]], "edrel", "rel")
    second = CoxPHFitter().fit(frame, "edrel", "rel")
    gain = first.log_likelihood_ratio_test().test_statistic
    return {
        "n1": {
            "loglik_null": first.log_likelihood_ - gain / 2,
            "loglik_histol": first.log_likelihood_,
            "loglik_instit": second.log_likelihood_,
            "chisq_histol": gain,
            "chisq_instit_histol": 2 * (second.log_likelihood_ - first.log_likelihood_),
            "basis": len(frame),
        }
    }
