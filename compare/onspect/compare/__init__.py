"""The variants side by side: trained in the same manner, exported, and measured through their files.

`compare` completes a comparison by its `Plan` and writes the tables. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onspect.runtime.lazy import public_names

if TYPE_CHECKING:
    from onspect.compare.datasets import Dataset as Dataset
    from onspect.compare.datasets import load_dataset as load_dataset
    from onspect.compare.experiments import Experiment as Experiment
    from onspect.compare.experiments import InterruptedExperimentError as InterruptedExperimentError
    from onspect.compare.run import Plan as Plan
    from onspect.compare.run import compare as compare

_HOMES = {
    "datasets": "Dataset load_dataset",
    "experiments": "Experiment InterruptedExperimentError",
    "run": "Plan compare",
}

__all__, __getattr__, __dir__ = public_names(__name__, _HOMES)
