"""Our names of the runtimes and devices. The sessions are in another module, so that options can list them cheaply."""

from __future__ import annotations

ONNXRUNTIME = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
"""Providers of onnxruntime, each with its fallbacks."""

CHOICES = ("auto", *ONNXRUNTIME, "openvino")
"""Valid choices. ``auto`` never selects OpenVINO, because its scores differ in the last digits."""


def runs_on_processor(provider: str) -> bool:
    """Return whether a provider uses only the cores of the processor.

    Parameters
    ----------
    provider
        One of `CHOICES`, other than ``auto``.

    Returns
    -------
    bool
        True for ``cpu`` and ``openvino``.
    """
    return provider in ("cpu", "openvino")
