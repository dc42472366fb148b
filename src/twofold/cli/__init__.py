"""The command line: one command per verb, with the estimator's options, names and error texts."""
