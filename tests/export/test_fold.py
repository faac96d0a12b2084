from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onspect.export.enlargement import Enlargement
from onspect.export.fold import fold
from onspect.export.graph import InspectionGraph, design_score
from onspect.training.config import HeadConfig, NetworkConfig
from onspect.training.head import Head
from onspect.training.networks import Decoder, Encoder


def build_graph(height: int, width: int, channels: int, reduction: int, name: str = "head") -> InspectionGraph:
    """Return a graph with a head whose every weight, and every running mean and variance, is drawn."""
    torch.manual_seed(3)
    network = NetworkConfig("cae", height, width, channels, (4, 8), (2, 1), 12, 6, reduction, expects=True)
    head = Head(HeadConfig((4, 6, 8, 8), 5, 1, 1, 1e-3, crops=False, single=(4, 4, 6, 6)), channels, (height, width))
    nn.init.uniform_(head.typical)
    nn.init.constant_(head.usual, -2.0)
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                assert isinstance(values, Tensor)
                nn.init.uniform_(values, 0.5, 2.0)
            assert layer.running_mean is not None
            nn.init.normal_(layer.running_mean)
    decoder = Decoder(network, torch.full((channels,), 0.5))
    return InspectionGraph(Encoder(network), decoder, network, design_score(name, network), head).eval()


@pytest.mark.parametrize("name", ["head", "expected"])
@pytest.mark.parametrize(("height", "width", "channels", "reduction"), [(36, 52, 1, 2), (48, 40, 3, 2), (35, 41, 3, 1)])
def test_folded_graph_computes_the_same(height: int, width: int, channels: int, reduction: int, name: str) -> None:
    """Score, map, reconstruction and latent are those of the trained networks, at the borders too."""
    graph = build_graph(height, width, channels, reduction, name)
    images = np.random.default_rng(9).integers(0, 256, (2, height, width, channels), np.uint8)
    with torch.no_grad():
        for folded, trained in zip(fold(graph)(torch.from_numpy(images)), graph(torch.from_numpy(images)), strict=True):
            torch.testing.assert_close(folded, trained, rtol=1e-4, atol=1e-5)


def test_folding_leaves_the_trained_networks_alone() -> None:
    """The graph that was folded still pools, enlarges and normalises as it was trained to."""
    graph = build_graph(36, 52, 1, 2)
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    fold(graph)
    assert graph.encoder.reduction == graph.decoder.reduction == 2
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())


def test_enlargement_is_bilinear() -> None:
    """The matrices do what interpolation between the pixels' centres does, also to sizes that are no multiple."""
    maps = torch.rand(2, 3, 9, 14)
    expected = F.interpolate(maps, size=(36, 53), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Enlargement(9, 14, 36, 53)(maps), expected)
