"""OpenVINO's own runtime with the interface of an onnxruntime session. It is imported when the first session opens."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.cpu import available_cores
from onspect.runtime.errors import ChoiceError


class OpenVinoSession:
    """A graph, compiled by OpenVINO for this machine's processor; safe to share between threads.

    It is compiled for one image, which is a fifth faster than a graph for any number of images. A batch runs image by
    image, so no score depends on its batch. Each core can run another image at the same time. Float32 stays float32,
    also on a processor with a shorter format, unless bfloat16 is chosen.

    Parameters
    ----------
    data
        The bytes of the model file.
    threads
        Number of threads that one run may use, from 1.
    bfloat16
        Whether to compute in bfloat16. Scores change in the third digit.

    Raises
    ------
    ChoiceError
        If bfloat16 is chosen and this processor does not have it.
    ImportError
        If OpenVINO is not installed.
    RuntimeError
        If OpenVINO refuses the graph.
    """

    def __init__(self, data: bytes, threads: int, *, bfloat16: bool = False) -> None:
        self._openvino = _import_openvino()
        core = self._openvino.Core()
        if bfloat16 and not has_bfloat16(core):
            raise ChoiceError(
                "this processor has no bfloat16 (AVX512-BF16 or AMX), which the provider 'openvino-bf16' needs; use "
                "the provider 'cpu' or 'openvino'"
            )
        model = core.read_model(data)
        _fold_constants(model)
        model.reshape({port: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
        _enlarge_by_products(model)
        streams = max(1, available_cores() // threads)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,  # all processes would use the same first cores
            "ENABLE_HYPER_THREADING": True,  # otherwise half the workers of such a machine wait for each other
        }
        self._model = core.compile_model(model, "CPU", settings)
        self.version: str = self._openvino.__version__.partition("-")[0]
        """Version of OpenVINO."""
        self._idle: deque[Any] = deque()  # requests that no thread uses

    def get_inputs(self) -> list[SimpleNamespace]:
        """Return the inputs of the graph as onnxruntime does.

        Returns
        -------
        list[SimpleNamespace]
            Name, type such as ``tensor(uint8)``, and shape of each input; None for a side of any length.
        """
        unsigned, found = self._openvino.Type.u8, []
        for port in self._model.inputs:
            shape = tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape)
            kind = "tensor(uint8)" if port.element_type == unsigned else str(port.element_type)
            found.append(SimpleNamespace(name=port.any_name, type=kind, shape=shape))
        return found

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Run the graph.

        Parameters
        ----------
        names
            The outputs to return.
        feeds
            One input by its name, with n images, uint8 [n, height, width, channels].

        Returns
        -------
        list[NDArray[np.float32]]
            The outputs in the order of names, each float32 [n, ...].
        """
        ((name, batch),) = feeds.items()
        found: list[list[NDArray[np.float32]]] = [[] for _ in names]
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        for place in range(len(batch)):
            image = np.ascontiguousarray(batch[place : place + 1])
            request.set_tensor(name, self._openvino.Tensor(image, shared_memory=True))
            request.infer()
            for output, values in zip(names, found, strict=True):
                values.append(request.get_tensor(output).data.copy())
        self._idle.append(request)
        return [values[0] if len(values) == 1 else np.concatenate(values) for values in found]


def has_bfloat16(core: Any) -> bool:
    """Return whether this processor computes in bfloat16.

    Parameters
    ----------
    core
        An `openvino.Core`.

    Returns
    -------
    bool
        True with AVX512-BF16 or AMX.
    """
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _fold_constants(model: Any) -> None:
    """Compute the weights of a file that stores them in float16 or in 8 bits with a scale.

    Otherwise OpenVINO 2026.4 computes them while it compiles, and one of ten compiled graphs had wrong scores. A graph
    with quantized arithmetic keeps its 8-bit weights.
    """
    from openvino.passes import ConstantFolding, Manager

    if all(operation.get_type_name() != "FakeQuantize" for operation in model.get_ops()):
        manager = Manager()
        manager.register_pass(ConstantFolding())
        manager.run_passes(model)


def _enlarge_by_products(model: Any) -> None:
    """Replace bilinear enlargements of a single plane by two products with constant matrices, eight times as fast."""
    from openvino import opset13

    for operation in model.get_ops():
        if operation.get_type_name() != "Interpolate" or operation.output(0).get_partial_shape().is_dynamic:
            continue  # without fixed sides there is no constant matrix
        facts = operation.get_attributes()
        small, large = (tuple(port(0).get_shape()) for port in (operation.input, operation.output))
        if (
            (facts["mode"], facts["coordinate_transformation_mode"]) == ("linear_onnx", "half_pixel")
            and len(small) == 4
            and small[:2] == large[:2] == (1, 1)
            and all(after % before == 0 for before, after in zip(small, large, strict=True))
        ):
            rows, columns = (_interpolate(before, after) for before, after in zip(small[2:], large[2:], strict=True))
            wide = opset13.matmul(operation.input_value(0), opset13.constant(columns.T.copy()), False, False)
            high = opset13.matmul(opset13.constant(rows), wide, False, False)
            high.set_friendly_name(operation.get_friendly_name())
            operation.output(0).replace(high.output(0))


def _interpolate(before: int, after: int) -> NDArray[np.float32]:
    """Return the matrix [after, before] that enlarges a side by linear interpolation between pixel centres."""
    places = ((np.arange(after) + 0.5) * before / after - 0.5).clip(0, before - 1)
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(before))).astype(np.float32)


def _import_openvino() -> Any:
    """Return the openvino module, without its telemetry.

    `import openvino` reports to a server of its maker and stores an identity in the home folder. Another package
    does this. Without that package OpenVINO uses a replacement that does nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python's mark of a missing module
    import openvino

    return openvino
