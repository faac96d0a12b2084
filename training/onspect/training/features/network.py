"""The backbones' networks in torch, with their normalisation in the first convolution, and their export to ONNX."""

from __future__ import annotations

import io
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onspect.training.features.trunk import Backbone
from onspect.training.to_onnx import convert

_LARGEST = 64  # largest side of an input for torch's export, in multiples of 32 pixels


def export_network(backbone: Backbone, weights: bytes | None) -> onnx.ModelProto:
    """Return a network of a package as an ONNX graph, as `onspect.training.features.trunk.export_trunk` describes it.

    Parameters
    ----------
    backbone
        The backbone.
    weights
        Content of the weights' file. None: those of timm.

    Returns
    -------
    onnx.ModelProto
        The graph.
    """
    trunk = _load_timm(backbone) if weights is None else _load_efficientnet(backbone, weights)
    rows, columns = (torch.export.Dim(name, min=1, max=_LARGEST) for name in ("rows", "columns"))
    stages = ["stride8", "stride16", "stride32"]
    example = torch.zeros(2, 3, 96, 128)
    return onnx.load_from_string(convert(trunk.eval(), example, "planes", stages, {2: 32 * rows, 3: 32 * columns}))


def _load_efficientnet(backbone: Backbone, weights: bytes) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(backbone.name)
    network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True, map_location="cpu"))
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
