"""What a model may run on, by our names; apart from the sessions, so that options can list them without loading any."""

from __future__ import annotations

ONNXRUNTIME = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
"""Those of onnxruntime, each with what it falls back to."""

CHOICES = ("auto", *ONNXRUNTIME, "openvino")
"""What may be asked for. ``auto`` never means OpenVINO, whose scores differ in the last digits."""


def runs_on_processor(provider: str) -> bool:
    """Tell whether a provider runs on the processor's own cores, and on no other device."""
    return provider in ("cpu", "openvino")
