"""Versions of Onspect and of the packages that it uses."""

from __future__ import annotations

import importlib.metadata
import platform

from onspect.runtime.doctor.packages import list_builds

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
    """Describe the versions of Onspect, Python and each installed package, without loading them.

    Returns
    -------
    str
        One line for each.
    """
    lines = [f"onspect, version {importlib.metadata.version('onspect')}", f"python {platform.python_version()}"]
    return "\n".join([*lines, *list_builds(_PACKAGES)])
