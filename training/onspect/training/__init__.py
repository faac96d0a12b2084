"""Train a convolutional autoencoder (CAE, VAE or AAE, Schneider et al. 2022) on images of good parts.

`train` trains on a folder of images and writes a run, `resume` goes on with an interrupted one. `TrainOptions` has
every choice, `PRESETS` the defaults. Names are loaded when they are first used: only then torch is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onspect.training.autoencoder.loop import Outcome, TrainingProgress
    from onspect.training.checkpoint import RunRecord, TrainedModel, load_trained
    from onspect.training.config import NetworkConfig, TrainConfig
    from onspect.training.presets import PRESETS, Preset
    from onspect.training.session import Callbacks, Devices, TrainOptions, resume, train

__all__ = [
    "PRESETS",
    "Callbacks",
    "Devices",
    "NetworkConfig",
    "Outcome",
    "Preset",
    "RunRecord",
    "TrainConfig",
    "TrainOptions",
    "TrainedModel",
    "TrainingProgress",
    "load_trained",
    "resume",
    "train",
]

_HOMES = {
    "PRESETS": "presets",
    "Callbacks": "session",
    "Devices": "session",
    "NetworkConfig": "config",
    "Outcome": "autoencoder.loop",
    "Preset": "presets",
    "RunRecord": "checkpoint",
    "TrainConfig": "config",
    "TrainOptions": "session",
    "TrainedModel": "checkpoint",
    "TrainingProgress": "autoencoder.loop",
    "load_trained": "checkpoint",
    "resume": "session",
    "train": "session",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
