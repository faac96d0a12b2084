"""Quantise the layers of a graph to 8-bit integers (static QDQ, per channel) with onnxruntime's tools."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QDQQuantizer, QuantType, create_calibrator

from onspect.export.precision.weighted_layers import Layer, find_layers

_BATCH = 4


class Quantizer:
    """Makes any mix of int8 and float32 layers from a float32 model and the ranges of its values on sample images.

    Weights are int8 with a scale for each output channel, and use 7 bits. Processors without VNNI add two products of
    8 bits in 16 bits, which would overflow and change the scores there.

    Activations have one scale for each tensor. A tensor without negative values, as after ReLU, is uint8 with zero
    point 0. Other tensors are int8, symmetric about 0. VNNI multiplies both directly. With another zero point OpenVINO
    loses more time than int8 gains. The scale includes the largest value on the samples, because percentile and entropy
    methods cut off values that only defects have.

    Parameters
    ----------
    model
        The float32 model.
    samples
        Images that give the ranges, as `stack_images` returns them.
    layers
        Layers that may be quantised; None for all of `find_layers`.
    outputs
        Whether the output of a layer is rounded before its activation, too.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        samples: NDArray[np.uint8],
        layers: Sequence[Layer] | None = None,
        *,
        outputs: bool = True,
    ) -> None:
        self.layers = find_layers(model.graph) if layers is None else list(layers)
        self._outputs = outputs
        self._kinds = sorted({layer.kind for layer in self.layers})
        self._model = model
        self._ranges = _measure_ranges(model, samples, self._kinds)
        self._unsigned = {
            name: [{"quant_type": QuantType.QUInt8, "symmetric": False}]
            for name, found in self._ranges.items()
            if found.lowest >= 0
        }

    def quantize(self, layers: Sequence[Layer]) -> onnx.ModelProto:
        """Return the model with some layers in int8 and everything else in float32.

        Parameters
        ----------
        layers
            Layers to quantise, from those of the constructor.

        Returns
        -------
        onnx.ModelProto
            A changed copy.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=[layer.node for layer in layers],
            nodes_to_exclude=[],
            op_types_to_quantize=self._kinds,
            extra_options={
                "ActivationSymmetric": True,
                "TensorQuantOverrides": self._unsigned,
                "OpTypesToExcludeOutputQuantization": [] if self._outputs else self._kinds,
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized: onnx.ModelProto = quantizer.model.model
        del quantized.metadata_props[:]  # metadata of the quantiser
        return quantized


def _measure_ranges(model: onnx.ModelProto, samples: NDArray[np.uint8], kinds: list[str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:  # the calibrator works on files
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        calibrator = create_calibrator(path, kinds, augmented_model_path=str(Path(folder, "augmented.onnx")))
        calibrator.collect_data(_Samples(samples))
        ranges = calibrator.compute_data()
        del calibrator  # Windows does not delete a file that a session has open
    return ranges


class _Samples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Passes sample images to onnxruntime's calibrator, a batch at a time."""

    def __init__(self, samples: NDArray[np.uint8]) -> None:
        together = _BATCH if samples.ndim == 4 else 1  # images of different sizes run one by one
        self._batches: Iterator[NDArray[np.uint8]] = (
            np.stack(list(samples[start : start + together])) for start in range(0, len(samples), together)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next batch under the input's name, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}
