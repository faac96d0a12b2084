"""The discriminative head: from image and reconstruction to a map of where a defect is.

After DRAEM (Zavrtanik, Kristan and Skocaj, 2021): a network that sees the input beside what the autoencoder made of it
learns, from defects drawn on good images, where the two tell of a defect. Unlike there it is a small feature pyramid
(Lin et al., 2017) whose map has a quarter of the image's resolution, light enough for the edge; a second one, smaller
still, sees the image beside the mean of the good ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onspect.training.config import HeadConfig
from onspect.training.networks import reduce

REDUCTION = 4
"""How many pixels, each way, a place of the head's map stands for."""

_PRIOR = -4.0  # log-odds of a defect where nothing is known yet: most places are good
_DICE, _IMAGE = 0.6, 0.2  # what the losses weigh beside the places
_SORTED = 2000  # places at most that a median is taken of, half of which TopK returns: older TensorRT's stops at 1,024
_HARDEST = 4  # places whose mean stands for the image's score in the loss


class Head(nn.Module):
    """Image and reconstruction, both [n, channels, height, width] in 0..1, to log-odds [n, 1, height/4, width/4].

    The map's sides are rounded up. They are the mean of two networks': `pair` compares the image with the
    reconstruction and gives the better verdicts, `single` sees the image beside what is typical, smaller, and points
    better. What `single` says of the image as a whole, by how much its median differs from the usual one, is taken away
    as far as `pair` finds the image good. Where the config has no filters for `single` there is none.

    size: height and width of the images. Buffers: `typical`, the mean of the good images [channels, height, width] in
    0..1; `usual`, the mean over good images of `single`'s median, [].
    """

    typical: Tensor
    usual: Tensor

    def __init__(self, config: HeadConfig, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.reduction, self.share = config.reduction, config.share
        self.pair = Pyramid(config.filters, config.width, 2 * channels)
        self.single = Pyramid(config.single, config.width, 2 * channels) if config.single else None
        self.register_buffer("typical", torch.zeros(channels, *size))
        self.register_buffer("usual", torch.zeros(()))

    def forward(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """Return the log-odds of a defect at each place of the map."""
        log_odds: Tensor = self.pair(image, reconstruction)
        if self.single is None:
            return log_odds
        alone: Tensor = self.single(*self.show_alone(image, self.typical[None]))
        alone = alone - _level(alone, log_odds, self.usual)
        if alone.shape != log_odds.shape:
            alone = F.interpolate(alone, size=log_odds.shape[2:], mode="bilinear", align_corners=False)
        return self.share * log_odds + (1.0 - self.share) * alone

    def show_alone(self, image: Tensor, typical: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `single` sees of images [n, c, h, w] and of what is typical there, for each or one for all."""
        seen = reduce(image, self.reduction)
        return seen, reduce(typical, self.reduction).expand_as(seen)


def _level(alone: Tensor, compared: Tensor, usual: Tensor) -> Tensor:
    """Return by how much `single` suspects each image as a whole [n, 1, 1, 1], as far as `pair` finds it good."""
    good = torch.sigmoid(-answer_of(compared))[:, None, None, None]
    return good * (median_of(alone) - usual)


def median_of(log_odds: Tensor) -> Tensor:
    """Return the median of each image's places [n, 1, 1, 1], or of evenly spread ones where there are very many."""
    flat = log_odds.flatten(1)
    flat = flat[:, :: -(-flat.shape[1] // _SORTED)]
    return flat.topk(flat.shape[1] // 2 + 1, dim=1).values[:, -1, None, None, None]  # ONNX has no median


class Pyramid(nn.Module):
    """One or more images of the same size, [n, c, height, width], to log-odds [n, 1, height/4, width/4], rounded up.

    filters: of the stem and of each stage after it. width: of the pyramid. channels: of all images together.
    """

    def __init__(self, filters: tuple[int, ...], width: int, channels: int) -> None:
        super().__init__()
        first, *others = filters
        self.stem: nn.Module = _Stem(_convolution(channels, first, kernel=5, stride=2))
        stages = []
        for inputs, outputs in zip(filters, others, strict=False):
            stages.append(nn.Sequential(_convolution(inputs, outputs, stride=2), _Residual(outputs)))
        self.stages = nn.ModuleList(stages)
        self.context = _Context(others[-1])
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in others)
        self.merged = nn.ModuleList(_convolution(width, width) for _ in others[1:])
        self.output = nn.Conv2d(width, 1, 1)
        assert self.output.bias is not None
        nn.init.constant_(self.output.bias, _PRIOR)

    def forward(self, *images: Tensor) -> Tensor:
        """Return the log-odds of a defect at each place of the map."""
        features = self.stem(*images)
        levels = []
        for stage in self.stages:
            features = stage(features)
            levels.append(features)
        levels[-1] = self.context(levels[-1])
        merged = self.lateral[-1](levels[-1])
        for index in range(len(levels) - 2, -1, -1):
            enlarged = F.interpolate(merged, size=levels[index].shape[2:], mode="nearest")
            merged = self.merged[index](enlarged + self.lateral[index](levels[index]))
        log_odds: Tensor = self.output(merged)
        return log_odds


class _Stem(nn.ModuleList):
    """The first layers, which see all images as channels of one."""

    def forward(self, *images: Tensor) -> Tensor:
        features = torch.cat(images, dim=1)
        for layer in self:
            features = layer(features)
        return features


class _Residual(nn.Module):
    """Two 3x3 convolutions beside an identity (He et al., 2016)."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.first = _convolution(filters, filters)
        self.second = nn.Sequential(nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.second(self.first(features)))


class _Context(nn.Module):
    """Tells every place of the coarsest map what the whole image is like: each channel's mean and spread.

    A patch that differs in tone or texture is a defect beside the rest of this image, not by itself.
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * filters, filters), nn.ReLU(inplace=True), nn.Linear(filters, filters))

    def forward(self, features: Tensor) -> Tensor:
        mean = features.mean(dim=(2, 3))
        offset = features - mean[:, :, None, None]
        spread = (offset.square().mean(dim=(2, 3)) + 1e-5).sqrt()
        return F.relu(features + self.layers(torch.cat([mean, spread], dim=1))[:, :, None, None])


def _convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def head_losses(log_odds: Tensor, mask: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Return the head's losses for each image [n]: log_odds [n, 1, h, w]; mask, weight [n, 1, height, width].

    ``focal`` (Lin et al., 2017, gamma 1) judges the places, each defect's by their weight; ``dice`` (Milletari et al.,
    2016) judges how well the defects as a whole are covered, large or small; ``image`` is the cross entropy of the
    image's own answer, the mean of its highest places, so that the false alarm that costs a good part its verdict is
    what training presses on.
    """
    target = F.adaptive_max_pool2d(mask, log_odds.shape[2:])
    counts = torch.where(target > 0, F.adaptive_max_pool2d(weight * mask, log_odds.shape[2:]), 1.0)
    entropy = F.binary_cross_entropy_with_logits(log_odds, target, reduction="none")
    focal = (1.0 - torch.exp(-entropy)) * entropy * counts
    answer = answer_of(log_odds)
    defective = (target.amax(dim=(1, 2, 3)) > 0).to(answer.dtype)
    image = F.binary_cross_entropy_with_logits(answer, defective, reduction="none")
    probability = log_odds.sigmoid()
    covered, both = (probability * target).sum(dim=(1, 2, 3)), (probability + target).sum(dim=(1, 2, 3))
    dice = (1.0 - (2.0 * covered + 1.0) / (both + 1.0)) * defective  # 1: of a place, so that none is divided by nothing
    return {"focal": 4.0 * focal.mean(dim=(1, 2, 3)), "dice": _DICE * dice, "image": _IMAGE * image}


def answer_of(log_odds: Tensor) -> Tensor:
    """Return one number for each image [n]: the mean of its highest places."""
    flat = log_odds.flatten(1)
    return flat.topk(min(_HARDEST, flat.shape[1]), dim=1).values.mean(dim=1)
