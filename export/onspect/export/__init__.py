"""Turn a trained run into one ONNX model file, and prove that the file computes the same as the trained model.

`export` writes a run as a model file, `quantize` a model file in int8 or float16. `SCORES` describes the scores. Names
are loaded when they are first used: only then torch is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onspect.runtime.lazy import public_names

if TYPE_CHECKING:
    from onspect.export.onnx_writer import Exported as Exported
    from onspect.export.onnx_writer import export as export
    from onspect.export.onnx_writer import export_quantized as export_quantized
    from onspect.export.parity import Parity as Parity
    from onspect.export.precision.search import LayerChoice as LayerChoice
    from onspect.export.precision.search import Quantized as Quantized
    from onspect.export.precision.search import quantize as quantize
    from onspect.export.scores import SCORES as SCORES
    from onspect.export.scores import ScoreSpec as ScoreSpec

_HOMES = {
    "onnx_writer": "Exported export export_quantized",
    "parity": "Parity",
    "precision.search": "LayerChoice Quantized quantize",
    "scores": "SCORES ScoreSpec",
}

__all__, __getattr__, __dir__ = public_names(__name__, _HOMES)
