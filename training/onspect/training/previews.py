"""The pictures of a run: input beside reconstruction and error map."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from onspect.runtime.inspection.visualization import Picture, heat_map, side_by_side, to_bgr
from onspect.runtime.model.schema import Tiling
from onspect.training.autoencoder.networks import Decoder, Encoder
from onspect.training.features.places import flatten_places
from onspect.training.tiles import Cut, Stitching


def draw_preview(
    images: NDArray[np.uint8], encoder: Encoder, decoder: Decoder, tiling: Tiling | None = None
) -> Picture:
    """Return a picture with rows of input, reconstruction and error map.

    All maps have one colour scale; orange is the 99th percentile of their errors.

    Parameters
    ----------
    images
        uint8 [n, height, width, channels].
    encoder, decoder
        The networks; they keep their mode.
    tiling
        Tiles that the networks see; the picture shows the stitched reconstruction. None for whole images.

    Returns
    -------
    Picture
        uint8 [rows, columns, 3], BGR.
    """
    cut, stitch = (torch.nn.Identity(), torch.nn.Identity()) if tiling is None else (Cut(tiling), Stitching(tiling))
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    decoder.eval()
    with torch.no_grad():
        inputs = torch.from_numpy(images).to(device).float().div(255.0).permute(0, 3, 1, 2)
        outputs = stitch.to(device)(decoder(encoder(cut(inputs))[0]).float())
        maps = (inputs - outputs).square().mean(dim=1).cpu().numpy()
        pixels = outputs.mul(255.0).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    encoder.train(training)
    decoder.train(training)
    scale = float(np.quantile(maps, 0.99))
    columns = [(to_bgr(i), to_bgr(o), heat_map(m, scale)) for i, o, m in zip(images, pixels, maps, strict=True)]
    return side_by_side(list(zip(*columns, strict=True)))


def draw_feature_preview(
    images: NDArray[np.uint8], features: NDArray[np.float32], encoder: Encoder, decoder: Decoder
) -> Picture:
    """Return a picture with rows of input and error map, for an autoencoder of features.

    Parameters
    ----------
    images
        uint8 [n, height, width, channels].
    features
        Their features, float32 [n, C, h, w].
    encoder, decoder
        The networks.

    Returns
    -------
    Picture
        uint8 [rows, columns, 3], BGR; the colour scale is that of `draw_preview`.
    """
    device = next(encoder.parameters()).device
    count, _, rows, columns = features.shape
    with torch.no_grad():
        places = torch.from_numpy(flatten_places(features)).to(device).float().permute(0, 3, 1, 2)
        errors = (places - decoder(encoder(places)[0]).float()).square().mean(dim=(1, 2, 3))
        maps = errors.reshape(count, rows, columns).cpu().numpy()
    scale = float(np.quantile(maps, 0.99))
    size = images.shape[2], images.shape[1]
    heat = [heat_map(np.asarray(cv2.resize(m, size, interpolation=cv2.INTER_LINEAR), np.float32), scale) for m in maps]
    return side_by_side([tuple(to_bgr(image) for image in images), tuple(heat)])
