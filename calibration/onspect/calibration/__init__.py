"""Set a model file's threshold from labelled images, and measure and report how well it does; needs no torch.

`calibrate` chooses the threshold by a `Policy`, `move_threshold` moves it without images, and `evaluate`
measures the model on images that it has not seen. Their results print as tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onspect.runtime.lazy import public_names

if TYPE_CHECKING:
    from onspect.calibration.calibration import calibrate as calibrate
    from onspect.calibration.calibration import move_threshold as move_threshold
    from onspect.calibration.comparison import Comparison as Comparison
    from onspect.calibration.comparison import compare_models as compare_models
    from onspect.calibration.evaluation import evaluate as evaluate
    from onspect.calibration.figures import Evaluation as Evaluation
    from onspect.calibration.fitness import Fitness as Fitness
    from onspect.calibration.fitness import Requirement as Requirement
    from onspect.calibration.metrics.image import IMAGE_METRICS as IMAGE_METRICS
    from onspect.calibration.metrics.image import Metric as Metric
    from onspect.calibration.metrics.pixel import PIXEL_METRICS as PIXEL_METRICS
    from onspect.calibration.regions import RegionDemand as RegionDemand
    from onspect.calibration.review import BANDS as BANDS
    from onspect.calibration.review import Band as Band
    from onspect.calibration.stamping import CalibrationResult as CalibrationResult
    from onspect.calibration.thresholds import POLICIES as POLICIES
    from onspect.calibration.thresholds import Policy as Policy

_HOMES = {
    "calibration": "calibrate move_threshold",
    "comparison": "Comparison compare_models",
    "evaluation": "evaluate",
    "figures": "Evaluation",
    "fitness": "Fitness Requirement",
    "metrics.image": "IMAGE_METRICS Metric",
    "metrics.pixel": "PIXEL_METRICS",
    "regions": "RegionDemand",
    "review": "BANDS Band",
    "stamping": "CalibrationResult",
    "thresholds": "POLICIES Policy",
}
"""The modules and their public names; a test compares them with the imports above, which are for type checkers."""

__all__, __getattr__, __dir__ = public_names(__name__, _HOMES)
