"""Score camera frames and image files with an onspect model file; needs numpy, OpenCV and onnxruntime only.

Names are loaded when they are first used, so that ``onspect --help`` starts at once and works where an extra is
missing. onnxruntime's own builds report how they are used to Microsoft, over the network and from a database in the
home folder. Nothing here talks to anyone unasked, so that is turned off before onnxruntime is loaded
(``ORT_DISABLE_TELEMETRY``, unless it is set already).
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onspect.runtime.errors import (
        ChoiceError,
        DatasetError,
        EngineError,
        ExportError,
        FleetError,
        GapError,
        ImageError,
        ModelFileError,
        OnspectError,
        OutputError,
        RefusedError,
        SeparationError,
        SourceError,
        TrainingError,
        UncalibratedError,
    )
    from onspect.runtime.images.decode import read_image
    from onspect.runtime.inspection.inspector import Inspection, Inspector
    from onspect.runtime.inspection.regions import Region
    from onspect.runtime.inspection.verdict import FrameContext, Verdict
    from onspect.runtime.model.file import read_model_info
    from onspect.runtime.model.schema import ModelInfo
    from onspect.runtime.teaching import teach

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "ChoiceError",
    "DatasetError",
    "EngineError",
    "ExportError",
    "FleetError",
    "FrameContext",
    "GapError",
    "ImageError",
    "Inspection",
    "Inspector",
    "ModelFileError",
    "ModelInfo",
    "OnspectError",
    "OutputError",
    "RefusedError",
    "Region",
    "SeparationError",
    "SourceError",
    "TrainingError",
    "UncalibratedError",
    "Verdict",
    "read_image",
    "read_model_info",
    "teach",
]

_HOMES = {
    "FrameContext": "inspection.verdict",
    "Inspection": "inspection.inspector",
    "Inspector": "inspection.inspector",
    "ModelInfo": "model.schema",
    "Region": "inspection.regions",
    "Verdict": "inspection.verdict",
    "read_image": "images.decode",
    "read_model_info": "model.file",
    "teach": "teaching",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
