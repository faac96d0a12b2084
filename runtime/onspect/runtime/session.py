"""A model file and the onnxruntime session that runs it. Apart from `Inspector`, so that it loads beside OpenCV."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.model_file import ModelFile, ModelInfo, read_model_file

_LOG = logging.getLogger("onspect")

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
"""What `Inspector` may run on, each with what it falls back to."""


@dataclass(frozen=True)
class LoadedModel:
    """A model file, read and checked, and the session that runs it."""

    file: ModelFile
    session: Any


def load_model(path: Path | str | ModelFile, *, provider: str = "auto", threads: int = 1) -> LoadedModel:
    """Read and check a model file and open its session; parameters and errors as `Inspector`'s."""
    file = path if isinstance(path, ModelFile) else read_model_file(path)
    session = _open_session(file.path, file.data, provider, threads)
    _check_inputs(file.path, session, file.info)
    return LoadedModel(file, session)


def _open_session(path: Path, data: bytes, provider: str, threads: int) -> Any:
    if provider not in ("auto", *PROVIDERS):
        raise ChoiceError(f"provider is {provider!r}; choose one of auto, {', '.join(PROVIDERS)}")
    here = onnxruntime.get_available_providers()
    wanted = provider
    if provider == "auto":
        wanted = "cuda" if "CUDAExecutionProvider" in here else "cpu"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    usable = [name for name in PROVIDERS[wanted] if name in here]
    try:
        session = onnxruntime.InferenceSession(data, options, providers=usable)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelFileError(f"onnxruntime cannot load {str(path)!r}: {error}; export it again") from error
    running = name_provider(session)
    if running != wanted:
        _LOG.warning(
            "the provider %r cannot be had here (this onnxruntime offers %s): running on %r",
            wanted,
            ", ".join(here),
            running,
        )
    return session


def name_provider(session: Any) -> str:
    """Return what a session runs on, by our name."""
    first = session.get_providers()[0]
    return next(name for name, chain in PROVIDERS.items() if chain[0] == first)


def _check_inputs(path: Path, session: Any, info: ModelInfo) -> None:
    recipe = info.preprocess
    found = [(item.name, item.type, list(item.shape[1:])) for item in session.get_inputs()]
    expected = [("image", "tensor(uint8)", [recipe.height, recipe.width, recipe.channels])]
    if found != expected:
        raise ModelFileError(f"{str(path)!r} takes {found}, and its metadata say {expected}; export it again")
