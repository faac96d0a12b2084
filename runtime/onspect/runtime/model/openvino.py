"""OpenVINO's own runtime, asked as an onnxruntime session is; it is loaded when the first session is opened."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.cpu import available_cores


@dataclass(frozen=True)
class GraphInput:
    """An input of a graph in onnxruntime's words: the type such as ``tensor(uint8)``, the shape with the batch."""

    name: str
    type: str
    shape: tuple[int, ...]


class OpenVinoSession:
    """A graph, compiled by OpenVINO for this machine's processor; safe to share between threads.

    It is compiled for one image, which makes a fifth more images a second than for any number of them: a batch is so
    many runs, and no score depends on the batch it is in. threads: how many one run may use; as many run at a time as
    there are cores for. Arithmetic is float32 where the graph's is, also where the processor knows a shorter one.

    Raises ImportError where OpenVINO is not installed, RuntimeError where it refuses the graph.
    """

    def __init__(self, data: bytes, threads: int) -> None:
        self._openvino = _import_openvino()
        core = self._openvino.Core()
        model = core.read_model(data)
        model.reshape({port: [1, *list(port.partial_shape)[1:]] for port in model.inputs})
        streams = max(1, available_cores() // threads)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,  # each process would pin itself to the same first cores
            "ENABLE_HYPER_THREADING": True,  # else half the workers of such a machine wait for each other
        }
        self._model = core.compile_model(model, "CPU", settings)
        self._shapes = {name: tuple(port.shape)[1:] for port in self._model.outputs for name in port.names}
        self._idle: deque[Any] = deque()  # requests that no thread runs now

    def get_inputs(self) -> list[GraphInput]:
        """Return the graph's inputs."""
        return [
            GraphInput(port.any_name, self._describe_type(port.element_type), tuple(port.shape))
            for port in self._model.inputs
        ]

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Return the outputs of these names, float32 [n, ...], for an input of n images by its name."""
        ((name, batch),) = feeds.items()
        outputs = [np.empty((len(batch), *self._shapes[output]), np.float32) for output in names]
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        for place in range(len(batch)):
            image = np.ascontiguousarray(batch[place : place + 1])
            request.set_tensor(name, self._openvino.Tensor(image, shared_memory=True))
            request.infer()
            for output, values in zip(names, outputs, strict=True):
                values[place] = request.get_tensor(output).data[0]
        self._idle.append(request)
        return outputs

    def _describe_type(self, kind: Any) -> str:
        return "tensor(uint8)" if kind == self._openvino.Type.u8 else str(kind)


def _import_openvino() -> Any:
    """Return the module, kept from reporting.

    As it comes, `import openvino` reports itself to a server of its makers' and keeps an identity in the home folder,
    in a package of its own; without that one it uses a stand-in that does nothing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so Python marks what is not there
    import openvino

    return openvino
