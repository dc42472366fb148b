"""Every method of the quality bench: functions of twofold's environment, and PyOD's detectors."""

from __future__ import annotations

from collections.abc import Mapping

from methods import detectors, family, imputers, studies
from methods.method import Method, Peer

METHODS: Mapping[str, Mapping[str, Method | Peer]] = {
    "detector": {**detectors.OWN, **detectors.PEERS, **detectors.ablations()},
    "imputer": imputers.IMPUTERS,
    "study": {**studies.STUDIES, **family.STUDIES},
    "script": studies.SCRIPTS,
}
