"""A small evaluator of Sigma rules and correlations (specification 2.1.0) over a stream of events."""
