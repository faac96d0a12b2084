"""A model file and the session that runs it. It is a module of its own, so that it loads while OpenCV does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.model.openvino import OpenVinoSession
from onspect.runtime.model.providers import CHOICES, ONNXRUNTIME
from onspect.runtime.model.schema import ModelInfo

_LOG = logging.getLogger("onspect")


@dataclass(frozen=True)
class LoadedModel:
    """A model file, read and checked, and the session that runs it."""

    file: ModelFile
    """The file."""

    session: Any
    """An `onnxruntime.InferenceSession` or an `OpenVinoSession`."""

    provider: str
    """Our name of the provider that runs the model: ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``."""


def load_model(path: Path | str | ModelFile, *, provider: str = "auto", threads: int = 1) -> LoadedModel:
    """Read and check a model file and open its session.

    Parameters
    ----------
    path
        The file, or its content if it was read before.
    provider
        One of `CHOICES`. If it is not available, a warning is logged and the next best one runs.
    threads
        Number of threads that one run may use, from 1.

    Returns
    -------
    LoadedModel
        The file and its session.

    Raises
    ------
    ModelFileError
        If the file cannot be read or run.
    ChoiceError
        If the provider is unknown.
    ImportError
        If ``openvino`` is chosen and not installed.
    """
    file = path if isinstance(path, ModelFile) else read_model_file(path)
    if provider not in CHOICES:
        raise ChoiceError(f"provider is {provider!r}; choose one of {', '.join(CHOICES)}")
    if provider == "openvino":
        loaded = _open_on_openvino(file, threads)
    else:
        loaded = _open_on_onnxruntime(file, provider, threads)
    _check_inputs(file.path, loaded.session, file.info)
    return loaded


def _open_on_openvino(file: ModelFile, threads: int) -> LoadedModel:
    try:
        return LoadedModel(file, OpenVinoSession(file.data, threads), "openvino")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]  # the lines before it name OpenVINO's source
        raise ModelFileError(f"OpenVINO cannot load {str(file.path)!r}: {reason}; take the provider cpu") from error


def _open_on_onnxruntime(file: ModelFile, provider: str, threads: int) -> LoadedModel:
    here = onnxruntime.get_available_providers()
    wanted = provider
    if provider == "auto":
        wanted = "cuda" if "CUDAExecutionProvider" in here else "cpu"
    options = session_options(threads)
    usable = [name for name in ONNXRUNTIME[wanted] if name in here]
    try:
        session = onnxruntime.InferenceSession(file.data, options, providers=usable)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelFileError(f"onnxruntime cannot load {str(file.path)!r}: {error}; export it again") from error
    running = _name_provider(session)
    if running != wanted:
        _LOG.warning(
            "the provider %r is not available (this onnxruntime offers %s): running on %r",
            wanted,
            ", ".join(here),
            running,
        )
    return LoadedModel(file, session, running)


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the settings of all sessions: waiting threads sleep, and warnings are not printed.

    Parameters
    ----------
    threads
        Number of threads for one run, 1 or more.

    Returns
    -------
    onnxruntime.SessionOptions
        The settings.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _name_provider(session: Any) -> str:
    first = session.get_providers()[0]
    return next(name for name, chain in ONNXRUNTIME.items() if chain[0] == first)


def _check_inputs(path: Path, session: Any, info: ModelInfo) -> None:
    preprocess = info.preprocess
    found = [(item.name, item.type, list(item.shape[1:])) for item in session.get_inputs()]
    expected = [("image", "tensor(uint8)", [preprocess.height, preprocess.width, preprocess.channels])]
    if found != expected:
        raise ModelFileError(f"{str(path)!r} takes {found}, and its metadata say {expected}; export it again")
