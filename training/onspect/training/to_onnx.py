"""Conversion of a torch module to a checked ONNX graph without paths or other traces of this machine."""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onspect.runtime.errors import ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 18
"""ONNX operator set of the graph; every supported onnxruntime can read it."""


def convert(
    module: nn.Module,
    example: NDArray[np.uint8] | Tensor,
    name: str,
    outputs: list[str],
    sides: Mapping[int, Any] | None = None,
) -> bytes:
    """Return a module with one input as a checked ONNX file. The first dimension of the input is dynamic.

    Parameters
    ----------
    module
        The module, in evaluation mode.
    example
        An input of the right shape, uint8 array or tensor, at least two items.
    name
        Name of the input.
    outputs
        Names of the outputs.
    sides
        Further dynamic dimensions of the input, as `torch.export` takes them; None for none.

    Returns
    -------
    bytes
        The ONNX file.

    Raises
    ------
    ExportError
        If torch cannot convert the module, or the onnx checker refuses the result.
    """
    import torch  # imported here: a base file from a kept backbone needs only the graph's constants

    inputs = torch.from_numpy(example) if isinstance(example, np.ndarray) else example
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                module,
                (inputs,),
                input_names=[name],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("N", min=1), **(sides or {})},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        proto = program.model_proto
        strip_traces(proto)
        onnx.checker.check_model(proto, full_check=True)
    except (RuntimeError, TypeError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(f"the model cannot be written as ONNX ({type(error).__name__}: {error})") from error
    return bytes(proto.SerializeToString())


def serialize(model: onnx.ModelProto, fault: str) -> bytes:
    """Return the bytes of an ONNX file after a check.

    Parameters
    ----------
    model
        The model.
    fault
        What is wrong if the check fails, for the message.

    Returns
    -------
    bytes
        The ONNX file.

    Raises
    ------
    ExportError
        If the model is not valid ONNX.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{fault}: {error}") from error
    return bytes(model.SerializeToString())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress warnings of torch's exporter about its own internals and about packages that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def strip_traces(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes about its own source lines: they are large and contain paths of this machine.

    Parameters
    ----------
    proto
        The ONNX file; it is changed in place.
    """
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del proto.graph.metadata_props[:]
    proto.producer_name = "onspect"
    proto.producer_version = importlib.metadata.version("onspect")
