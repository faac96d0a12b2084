"""A model file and the session that runs it. It is a module of its own, so that it loads while OpenCV does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime

from onspect.runtime.errors import ChoiceError, ModelFileError
from onspect.runtime.model.file import ModelFile, read_model_file
from onspect.runtime.model.providers import BFLOAT16, CHOICES, ONNXRUNTIME
from onspect.runtime.model.schema import ModelInfo

if TYPE_CHECKING:
    from onspect.runtime.model.openvino import OpenVinoSession

_LOG = logging.getLogger("onspect")


@dataclass(frozen=True)
class LoadedModel:
    """A model file, read and checked, and the session that runs it."""

    file: ModelFile
    """The file."""

    session: Any
    """An `onnxruntime.InferenceSession` or an `OpenVinoSession`."""

    provider: str
    """Our name of the provider that runs the model: one of `CHOICES` other than ``auto``."""

    fast: OpenVinoSession | None = None
    """With ``openvino-bf16`` the session in bfloat16, which runs first; None with the other providers."""


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
        If the file cannot be read or run, or has no margin for ``openvino-bf16``.
    ChoiceError
        If the provider is unknown, or the processor has no bfloat16.
    ImportError
        If OpenVINO is chosen and not installed.
    """
    file = path if isinstance(path, ModelFile) else read_model_file(path)
    if provider not in CHOICES:
        raise ChoiceError(f"provider is {provider!r}; choose one of {', '.join(CHOICES)}")
    if provider == "openvino":
        loaded = LoadedModel(file, open_on_openvino(file, threads), provider)
    elif provider == BFLOAT16:
        _check_margin(file)
        fast = open_on_openvino(file, threads, bfloat16=True)
        loaded = LoadedModel(file, _open_on_onnxruntime(file, "cpu", threads).session, provider, fast)
    else:
        loaded = _open_on_onnxruntime(file, provider, threads)
    _check_inputs(file.path, loaded.session, file.info)
    return loaded


def open_on_openvino(file: ModelFile, threads: int, *, bfloat16: bool = False) -> OpenVinoSession:
    """Open a session on OpenVINO.

    Parameters
    ----------
    file
        The model file.
    threads
        Number of threads that one run may use, from 1.
    bfloat16
        Whether to compute in bfloat16.

    Returns
    -------
    OpenVinoSession
        The session.

    Raises
    ------
    ModelFileError
        If OpenVINO refuses the file.
    ChoiceError
        If bfloat16 is chosen and the processor does not have it.
    ImportError
        If OpenVINO is not installed.
    """
    from onspect.runtime.model.openvino import OpenVinoSession

    try:
        return OpenVinoSession(file.data, threads, bfloat16=bfloat16)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]  # the lines before it name OpenVINO's source
        raise ModelFileError(f"OpenVINO cannot load {str(file.path)!r}: {reason}; use the provider cpu") from error


def _check_margin(file: ModelFile) -> None:
    """Raise ModelFileError if the file has no margin of bfloat16 for its graph."""
    if file.info.valid_margin is None:
        reason = "no margin of bfloat16" if file.info.bfloat16 is None else "a margin of bfloat16 for an earlier graph"
        import shlex

        raise ModelFileError(
            f"{str(file.path)!r} has {reason}, which the provider {BFLOAT16!r} needs; measure it: "
            f"onspect bench {shlex.quote(str(file.path))} GOOD --margin 90%"
        )


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
    found = [
        (item.name, item.type, [side if isinstance(side, int) else "any" for side in item.shape[1:]])
        for item in session.get_inputs()
    ]
    sides = ["any", "any"] if preprocess.keep_aspect else [preprocess.height, preprocess.width]
    expected = [("image", "tensor(uint8)", [*sides, preprocess.channels])]
    if found != expected:
        raise ModelFileError(f"{str(path)!r} takes {found}, and its metadata say {expected}; export it again")
