"""Watch the scores of a running line for drift, separately for each of its models."""

from __future__ import annotations

import logging

from onspect.runtime.drift.detector import Drift, make_drift
from onspect.runtime.errors import UncalibratedError
from onspect.runtime.inspection.inspector import Inspector

_LOG = logging.getLogger("onspect")

_MODELS = 8  # most models watched at a time, the last ones used: a megabyte each


class DriftWatch:
    """Follows the scores of each model. `message` describes the drift, None without drift."""

    def __init__(self) -> None:
        self._drifts: dict[str, Drift | None] = {}
        self.message: str | None = None

    def update(self, inspector: Inspector, score: float | None) -> None:
        """Take the score of a frame.

        Parameters
        ----------
        inspector
            The model that judged the frame.
        score
            The score, None for a fault.
        """
        drift = self._find(inspector)
        alarm = None if drift is None else drift.update(score)
        if alarm is not None:
            self.message = alarm.describe()
            _LOG.warning("%s", self.message)

    def _find(self, inspector: Inspector) -> Drift | None:
        label = inspector.label
        if label not in self._drifts:
            try:
                self._drifts[label] = make_drift(inspector.info)
            except UncalibratedError as error:
                _LOG.info("drift is not watched for: %s", error)
                self._drifts[label] = None
            self.message = None  # the message about the earlier model is obsolete
            while len(self._drifts) > _MODELS:
                del self._drifts[next(iter(self._drifts))]
        return self._drifts[label]
