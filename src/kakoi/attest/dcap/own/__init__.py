"""Our own reading of the DCAP rules, independent of dcap-qvl: each of the two must accept a quote."""
