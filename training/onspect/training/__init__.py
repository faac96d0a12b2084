"""Train a convolutional autoencoder (CAE, VAE or AAE, Schneider et al. 2022) on images of good parts.

`train` trains on a folder of images and writes a run, `resume` continues an interrupted one. `TrainOptions` has
every choice, `PRESETS` the defaults. Names are loaded when they are first used: only then torch is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onspect.runtime.lazy import public_names

if TYPE_CHECKING:
    from onspect.training.autoencoder.loop import Outcome as Outcome
    from onspect.training.autoencoder.loop import TrainingProgress as TrainingProgress
    from onspect.training.checkpoint import RunRecord as RunRecord
    from onspect.training.checkpoint import TrainedModel as TrainedModel
    from onspect.training.checkpoint import load_trained as load_trained
    from onspect.training.config import NetworkConfig as NetworkConfig
    from onspect.training.config import TrainConfig as TrainConfig
    from onspect.training.config import design_network as design_network
    from onspect.training.features.base import make_base as make_base
    from onspect.training.presets import PRESETS as PRESETS
    from onspect.training.presets import Preset as Preset
    from onspect.training.session import Callbacks as Callbacks
    from onspect.training.session import Devices as Devices
    from onspect.training.session import TrainOptions as TrainOptions
    from onspect.training.session import resume as resume
    from onspect.training.session import train as train

_HOMES = {
    "autoencoder.loop": "Outcome TrainingProgress",
    "checkpoint": "RunRecord TrainedModel load_trained",
    "config": "NetworkConfig TrainConfig design_network",
    "features.base": "make_base",
    "presets": "PRESETS Preset",
    "session": "Callbacks Devices TrainOptions resume train",
}

__all__, __getattr__, __dir__ = public_names(__name__, _HOMES)
