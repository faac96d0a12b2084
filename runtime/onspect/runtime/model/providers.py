"""Our names of the runtimes and devices. The sessions are in another module, so that options can list them cheaply."""

from __future__ import annotations

ONNXRUNTIME = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
"""Providers of onnxruntime, each with its fallbacks."""

BFLOAT16 = "openvino-bf16"
"""OpenVINO in bfloat16, and onnxruntime in float32 for scores near a threshold."""

CHOICES = ("auto", *ONNXRUNTIME, "openvino", BFLOAT16)
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
        True for ``cpu``, ``openvino`` and ``openvino-bf16``.
    """
    return provider in ("cpu", "openvino", BFLOAT16)
