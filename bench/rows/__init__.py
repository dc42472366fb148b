"""The rows of the quality bench, by name: on tables, and each kind of autoencoder on images."""

from __future__ import annotations

from trials import Row

from rows import detection, false_alarms, family, imputation, large, planted

ROWS: dict[str, Row] = {
    "adbench": Row(detection.adbench_trials, detection.summary),
    "adbench-clean": Row(detection.adbench_clean_trials, detection.summary),
    "odds": Row(detection.odds_trials, detection.summary),
    "ablation": Row(detection.ablation_trials, detection.summary),
    "imputation": Row(imputation.trials, imputation.summary),
    "false-alarms": Row(false_alarms.trials, false_alarms.summary),
    "planted": Row(planted.trials, planted.summary),
    "large": Row(large.trials, large.summary),
}
FAMILY: dict[str, Row] = {name: Row(make, family.summary) for name, make in family.TRIALS.items()}
