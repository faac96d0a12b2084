"""The same networks with less to do: what follows from trained weights alone is worked out once, at export.

Every change is exact but for the last digits of a float: `export` holds the file against the networks as they were
trained.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from onspect.export.enlargement import Enlargement
from onspect.export.graph import InspectionGraph
from onspect.training.head import Head
from onspect.training.networks import Decoder, Encoder, reduce


def fold(graph: InspectionGraph) -> InspectionGraph:
    """Return a copy of a graph in evaluation mode that computes the same in fewer and faster operations."""
    folded = copy.deepcopy(graph)
    _fold_encoder(folded.encoder)
    _fold_decoder(folded.decoder)
    if folded.head is not None:
        _fold_head(folded.head)
    return folded


def _fold_encoder(encoder: Encoder) -> None:
    """Put the mean over squares of pixels into the first convolution: wider kernel, longer steps."""
    reduction = encoder.reduction
    if reduction == 1:
        return
    first = encoder.convolutions[0]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(first.padding, tuple)
    kernel, stride, padding = (reduction * values[0] for values in (first.kernel_size, first.stride, first.padding))
    wider = nn.Conv2d(first.in_channels, first.out_channels, kernel, stride=stride, padding=padding)
    weight = first.weight.repeat_interleave(reduction, dim=2).repeat_interleave(reduction, dim=3)
    wider.weight = nn.Parameter(weight / reduction**2)
    wider.bias = first.bias
    encoder.convolutions[0] = wider
    encoder.reduction = 1


def _fold_decoder(decoder: Decoder) -> None:
    """Enlarge what the decoder gives by two products with matrices."""
    reduction = decoder.reduction
    if reduction == 1:
        return
    height, width = decoder.size
    for layers in filter(None, (decoder.convolutions, decoder.expectation)):
        layers.append(Enlargement(height, width, height * reduction, width * reduction))
    decoder.reduction = 1


def _fold_head(head: Head) -> None:
    """Give image and reconstruction a convolution each, so that no pixels are copied to lie side by side.

    That of what is typical is always the same and worked out here.
    """
    of_image, of_reconstruction, others = _split(head.pair.stem)
    head.pair.stem = _SplitStem(of_image, of_reconstruction, others)
    if head.single is not None:
        of_image, of_typical, others = _split(head.single.stem)
        typical = reduce(head.typical[None], head.reduction)
        head.single.stem = _TypicalStem(of_image, of_typical(typical).detach(), others)


def _split(stem: nn.Module) -> tuple[nn.Conv2d, nn.Conv2d, nn.Module]:
    """Return a convolution for each of two images, whose sum is that of the stem's with its norm, and what follows."""
    convolution, norm, *others = stem.children()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    whole = fuse_conv_bn_eval(convolution, norm)
    half = whole.in_channels // 2
    first, second = _part(whole, slice(half), bias=True), _part(whole, slice(half, None), bias=False)
    return first, second, nn.Sequential(*others)


def _part(whole: nn.Conv2d, channels: slice, *, bias: bool) -> nn.Conv2d:
    weight = whole.weight[:, channels].detach().clone()
    assert isinstance(whole.padding, tuple)
    part = nn.Conv2d(
        weight.shape[1],
        whole.out_channels,
        whole.kernel_size[0],
        stride=whole.stride[0],
        padding=whole.padding[0],
        bias=bias,
    )
    part.weight = nn.Parameter(weight)
    if bias:
        part.bias = whole.bias
    return part


class _SplitStem(nn.Module):
    """A network's first layers: a convolution over two images as the sum of one over each."""

    def __init__(self, of_image: nn.Conv2d, of_reconstruction: nn.Conv2d, others: nn.Module) -> None:
        super().__init__()
        self.of_image, self.of_reconstruction, self.others = of_image, of_reconstruction, others

    def forward(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        features: Tensor = self.others(self.of_image(image) + self.of_reconstruction(reconstruction))
        return features


class _TypicalStem(nn.Module):
    """The same where the second image is one for all: its convolution is a constant, [1, filters, height, width]."""

    def __init__(self, of_image: nn.Conv2d, of_typical: Tensor, others: nn.Module) -> None:
        super().__init__()
        self.of_image, self.others = of_image, others
        self.register_buffer("of_typical", of_typical)

    def forward(self, image: Tensor, _typical: Tensor) -> Tensor:
        features: Tensor = self.others(self.of_image(image) + self.get_buffer("of_typical"))
        return features
