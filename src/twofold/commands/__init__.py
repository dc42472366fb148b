"""The commands of `twofold`, each a function that a terminal calls."""
