import math

import pytest
import torch
from torch import nn

from onspect.training.autoencoder.networks import Critic, Decoder, Encoder, map_sizes
from onspect.training.config import NetworkConfig, design_network

PAPER = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def paper_network(data: str, variant: str = "cae") -> NetworkConfig:
    height, width, channels = PAPER[data]
    return design_network(variant, "paper", height=height, width=width, channels=channels)


def layers(module: nn.Module) -> list[tuple[int, int]]:
    """Input and output channels of every convolution."""
    return [
        (layer.in_channels, layer.out_channels)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]


def linear(module: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in module.modules() if isinstance(layer, nn.Linear)]


def test_table_1_gives_the_mnist_layers() -> None:
    """The 28 px mono network has the channels of Table 1 and halves 28 to 14, 7 and 4."""
    config = paper_network("mnist")
    assert layers(Encoder(config)) == [(1, 16), (16, 32), (32, 64), (64, 64), (64, 16)]
    assert layers(Decoder(config, torch.tensor([0.1]))) == [(16, 64), (64, 64), (64, 32), (32, 16), (16, 1)]
    assert map_sizes(config) == [(28, 28), (28, 28), (14, 14), (7, 7), (4, 4), (4, 4)]


def test_table_2_gives_the_cifar_layers() -> None:
    """The 32 px colour network has the channels of Table 2, with 16 where its deconv1 contradicts its conv4."""
    config = paper_network("cifar10")
    assert layers(Encoder(config)) == [(3, 8), (8, 16), (16, 32), (32, 16)]
    assert layers(Decoder(config, torch.full((3,), 0.5))) == [(16, 32), (32, 16), (16, 8), (8, 3)]
    assert map_sizes(config)[-1] == (8, 8)


@pytest.mark.parametrize(("data", "flat"), [("mnist", 256), ("cifar10", 1024)])
def test_table_3_gives_the_bottleneck(data: str, flat: int) -> None:
    """The bottleneck goes from the flattened map over r = 100 to n_z = 20 and back; the VAE has two inmost layers."""
    config = paper_network(data)
    assert linear(Encoder(config)) == [(flat, 100), (100, 20)]
    assert linear(Encoder(paper_network(data, "vae"))) == [(flat, 100), (100, 20), (100, 20)]
    assert linear(Decoder(config, torch.full((config.channels,), 0.5))) == [(20, 100), (100, flat)]


def test_table_4_gives_the_critic() -> None:
    """The critic goes from n_z over 10 to 1."""
    assert linear(Critic(paper_network("mnist", "aae"))) == [(20, 10), (10, 1)]


@pytest.mark.parametrize("variant", ["cae", "vae", "aae"])
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(28, 28, 1), (32, 32, 3), (64, 48, 1), (37, 129, 3), (8, 8, 1), (101, 100, 1)]
)
def test_any_size_comes_back(variant: str, height: int, width: int, channels: int) -> None:
    """For every size and number of channels, the reconstruction has the same shape and values between 0 and 1."""
    config = design_network(variant, "fast", height=height, width=width, channels=channels)
    encoder, decoder = Encoder(config), Decoder(config, torch.full((channels,), 0.3))
    image = torch.rand(2, channels, height, width)
    latent, log_sigma = encoder(image)
    reconstruction = decoder(latent)
    assert latent.shape == (2, config.latent)
    assert (log_sigma is not None) == (variant == "vae")
    assert reconstruction.shape == image.shape
    assert 0 <= reconstruction.min() <= reconstruction.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_general_decoder_says_what_error_to_expect(channels: int) -> None:
    """One map beside the same reconstruction, between the error of rounding and a quarter."""
    side = 96
    config = design_network("cae", "fast", height=side, width=side, channels=channels)
    decoder = Decoder(config, torch.full((channels,), 0.3))
    latent = 9.0 * torch.randn(2, config.latent)
    reconstruction, log_expected = decoder.expect(latent)
    assert torch.equal(reconstruction, decoder(latent))
    assert log_expected is not None
    assert log_expected.shape == (2, 1, side, side)
    assert math.log(1 / 255**2 / 12) - 1e-5 <= log_expected.min() <= log_expected.max() <= math.log(0.25) + 1e-5


def test_what_is_expected_has_no_say_in_the_reconstruction() -> None:
    """Its gradient reaches its own layer alone, so that the autoencoder trains as it does without."""
    config = design_network("cae", "fast", height=32, width=32, channels=1)
    decoder = Decoder(config, torch.tensor([0.3]))
    log_expected = decoder.expect(torch.randn(2, config.latent))[1]
    assert log_expected is not None
    log_expected.sum().backward()
    assert {name.split(".")[0] for name, value in decoder.named_parameters() if value.grad is not None} == {
        "expectation"
    }


def test_the_paper_s_decoder_expects_nothing() -> None:
    """Its networks are the tables' own."""
    assert Decoder(paper_network("mnist"), torch.tensor([0.1])).expect(torch.zeros(1, 20))[1] is None


def test_deeper_for_larger() -> None:
    """The stack halves the size until the shorter side is at most 8 pixels."""
    depths = [
        len(design_network("cae", "balanced", height=side, width=side, channels=1).strides)
        for side in (16, 64, 128, 256)
    ]
    assert depths == [2, 4, 5, 6]


def test_output_starts_at_the_mean_pixel() -> None:
    """The untrained decoder's output is near the training images' mean, so that a black border cannot saturate it."""
    decoder = Decoder(paper_network("mnist"), torch.tensor([0.07]))
    output = decoder(torch.zeros(1, 20)).detach()
    assert math.isclose(float(output.mean()), 0.07, abs_tol=0.01)


def test_paper_network_is_refused_elsewhere() -> None:
    """Asking for the paper's network at a size that it has none for names the size and the other presets."""
    with pytest.raises(ValueError, match=r"not for 64x48 with 1 channel.*balanced"):
        design_network("cae", "paper", height=48, width=64, channels=1)


def test_tiny_images_are_refused() -> None:
    """An image below 8 pixels has nothing to halve."""
    with pytest.raises(ValueError, match="7x64 is too small"):
        design_network("cae", "fast", height=64, width=7, channels=1)
