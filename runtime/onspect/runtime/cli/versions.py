"""The versions of Onspect and of the packages that do its work."""

from __future__ import annotations

import importlib.metadata
import platform

_PACKAGES = (
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "onnx",
    "scikit-learn",
    "harvesters",
    "av",
    "ray",
)


def describe_versions() -> str:
    """Return ``onspect, version ..`` and a line for Python and each package that is installed; nothing is loaded."""
    lines = [f"onspect, version {importlib.metadata.version('onspect')}", f"python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "\n".join(lines)
