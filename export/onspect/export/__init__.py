"""Turn a trained run into one ONNX model file, and prove that the file does what the trained model does.

`export` writes a run as a model file, `quantize` a model file in int8 or float16. `SCORES` describes the scores. Names
are loaded when they are first used: only then torch is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import onspect.runtime  # noqa: F401 - before onnxruntime, whose reports over the network it turns off

if TYPE_CHECKING:
    from onspect.export.onnx_writer import Exported, export, export_quantized
    from onspect.export.parity import Parity
    from onspect.export.precision.search import LayerChoice, Quantized, quantize
    from onspect.export.scores import SCORES, ScoreSpec

__all__ = [
    "SCORES",
    "Exported",
    "LayerChoice",
    "Parity",
    "Quantized",
    "ScoreSpec",
    "export",
    "export_quantized",
    "quantize",
]

_HOMES = {
    "SCORES": "scores",
    "Exported": "onnx_writer",
    "LayerChoice": "precision.search",
    "Parity": "parity",
    "Quantized": "precision.search",
    "ScoreSpec": "scores",
    "export": "onnx_writer",
    "export_quantized": "onnx_writer",
    "quantize": "precision.search",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
