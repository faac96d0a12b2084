"""A check in its own process, because a library may crash, hang or print; the result is JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from onspect.runtime.doctor.tiny_graph import build_tiny_graph


def start_provider(provider: str) -> str:
    """Run a session on an onnxruntime provider.

    Parameters
    ----------
    provider
        Name of the provider in onnxruntime.

    Returns
    -------
    str
        Name of the provider that the session really uses.

    Raises
    ------
    RuntimeError
        If the result is wrong.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2  # its warnings name the missing library
    options.intra_op_num_threads = 1
    providers = [provider] if provider == "CPUExecutionProvider" else [provider, "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(build_tiny_graph(), options, providers=providers)
    (doubled,) = session.run(None, {"numbers": np.arange(4, dtype=np.float32)})
    if doubled.tolist() != [0.0, 2.0, 4.0, 6.0]:
        raise RuntimeError(f"a graph that doubles 0, 1, 2, 3 gave {doubled.tolist()}")
    return str(session.get_providers()[0])


def start_openvino() -> str:
    """Compile and run the graph with OpenVINO.

    Returns
    -------
    str
        Version of OpenVINO, and whether this processor has bfloat16.

    Raises
    ------
    RuntimeError
        If the result is wrong.
    """
    import openvino

    compiled = openvino.Core().compile_model(openvino.Core().read_model(build_tiny_graph()), "CPU")
    (doubled,) = compiled(np.arange(4, dtype=np.float32)).values()
    if doubled.tolist() != [0.0, 2.0, 4.0, 6.0]:
        raise RuntimeError(f"a graph that doubles 0, 1, 2, 3 gave {doubled.tolist()}")
    from onspect.runtime.model.openvino import has_bfloat16

    return f"{openvino.__version__}, {'with' if has_bfloat16(openvino.Core()) else 'without'} bfloat16"


def list_cameras_of(producer: str) -> list[str]:
    """Load a GenTL producer and list its cameras.

    Parameters
    ----------
    producer
        Path of the .cti file.

    Returns
    -------
    list[str]
        Serial number, model and status of each camera.
    """
    from onspect.runtime.sources.cameras.gentl import list_cameras

    return [f"{camera.serial} ({camera.model}, {camera.status})" for camera in list_cameras([Path(producer)])]


def main(kind: str, argument: str) -> None:
    """Run a check and print its answer or its error.

    Parameters
    ----------
    kind
        ``provider``, ``openvino`` or ``gentl``.
    argument
        Argument of the check.
    """
    work = {"provider": start_provider, "openvino": lambda _: start_openvino(), "gentl": list_cameras_of}[kind]
    try:
        answer = {"answer": work(argument)}
    except Exception as error:  # noqa: BLE001 - the parent reports every error
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
