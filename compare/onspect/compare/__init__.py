"""The variants side by side: trained in the same manner, exported, and measured through their files.

`compare` completes a comparison by its `Plan` and writes the tables. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onspect.compare.datasets import Dataset, load_dataset
    from onspect.compare.experiments import Experiment, InterruptedExperimentError
    from onspect.compare.run import Plan, compare

__all__ = ["Dataset", "Experiment", "InterruptedExperimentError", "Plan", "compare", "load_dataset"]

_HOMES = {
    "Dataset": "datasets",
    "Experiment": "experiments",
    "InterruptedExperimentError": "experiments",
    "Plan": "run",
    "compare": "run",
    "load_dataset": "datasets",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
