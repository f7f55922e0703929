"""Are the UNet, PatchGAN and StyleGAN discriminators the published networks, layer by layer?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litevae.models.discriminators import PatchDiscriminator, UNetDiscriminator, resampling
from litevae.models.discriminators.resampling import ResamplingConv2d
from litevae.models.discriminators.stylegan import (
    Blur,
    EqualizedConv2d,
    EqualizedLinear,
    ResidualBlock,
    minibatch_deviation,
    width_at,
)
from litevae.models.discriminators.unet import encoder_widths


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_widths() -> None:
    assert encoder_widths(64, 512) == encoder_widths(64, 256) == [64, 128, 256, 512, 512, 1024]
    assert [len(encoder_widths(1, 2**power)) for power in range(4, 9)] == [2, 3, 4, 5, 6]
    assert [width_at(side, 64) for side in (256, 128, 64, 32, 4)] == [64, 128, 256, 512, 512]
    assert width_at(1024, 1) == 1


@pytest.mark.parametrize("size", [3, 1])
@pytest.mark.parametrize("fewest_positions", [0, 1_000_000])
def test_resampling_is_folded_into_the_convolution(
    size: int, fewest_positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joined, and one after the other as where there are few pixels."""
    monkeypatch.setattr(resampling, "FEWEST_POSITIONS", fewest_positions)
    x = torch.randn(2, 3, 6, 10, dtype=torch.float64)
    down, up = (ResamplingConv2d(3, 4, size, how).double() for how in ("down", "up"))
    pooled = F.avg_pool2d(F.conv2d(x, down.weight, down.bias, padding=size // 2), 2)
    torch.testing.assert_close(down(x), pooled, rtol=1e-12, atol=1e-12)
    repeated = F.conv2d(F.interpolate(x, scale_factor=2), up.weight, up.bias, padding=size // 2)
    torch.testing.assert_close(up(x), repeated, rtol=1e-12, atol=1e-12)


def plain_unet(network: UNetDiscriminator, image: Tensor) -> tuple[Tensor, Tensor]:
    """The same network step by step, every weight divided by its exact singular value, in float64."""

    def weights(layer: Any) -> tuple[Tensor, Tensor]:
        original = layer.parametrizations.weight.original
        return original / torch.linalg.svdvals(original.flatten(1))[0], layer.bias

    def conv(layer: Any, x: Tensor) -> Tensor:
        weight, bias = weights(layer)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    x, features = image, []
    for index, block in enumerate(network.down_blocks):
        hidden = conv(block.conv2, conv(block.conv1, x.relu() if index else x).relu())
        x = F.avg_pool2d(hidden + conv(block.conv_shortcut, x), 2)
        features.append(x)
    weight, bias = weights(network.bottleneck_out)
    image_logit = F.linear(x.relu().sum((2, 3)), weight[:, :, 0, 0], bias)
    for index, block in enumerate(network.up_blocks):
        joined = x if index == 0 else torch.cat([x, features[-1 - index]], 1)
        hidden = conv(block.conv1, F.interpolate(joined.relu(), scale_factor=2))
        x = conv(block.conv2, hidden.relu()) + conv(block.conv_shortcut, F.interpolate(joined, scale_factor=2))
    return conv(network.conv_out, x), image_logit


def layers_of(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def disturb(network: nn.Module) -> None:
    """Singular values that differ, and biases."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("resolution", [32, 256])
def test_unet_is_the_plain_formulation(resolution: int) -> None:
    network = UNetDiscriminator(1, resolution).double()
    disturb(network)
    with torch.no_grad():
        for _ in range(300):
            for layer in layers_of(network):
                layer.weight  # noqa: B018  (in training, one power iteration)
        image = torch.rand(1, 3, resolution, resolution, dtype=torch.float64) * 2 - 1
        network.eval()
        for ours, plain in zip(network(image), plain_unet(network, image), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def largest_singular_values(network: nn.Module) -> Tensor:
    network.eval()
    norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2) for layer in layers_of(network)]
    network.train()
    return torch.stack(norms).detach()


def test_spectral_norm_of_every_weight_becomes_1() -> None:
    network = UNetDiscriminator(2, 32)
    disturb(network)
    assert len(layers_of(network)) == 3 * 3 + 3 * 3 + 2
    before = largest_singular_values(network)
    assert (before - 1).abs().max() > 0.1
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        for _ in range(100):
            network(image)
    after = largest_singular_values(network)
    torch.testing.assert_close(after, torch.ones_like(after), rtol=0, atol=0.01)


def test_spectral_norm_is_outside_of_autocast() -> None:
    """In half precision the singular values would be wrong in the third digit."""
    network, seen = UNetDiscriminator(2, 16), []
    layers: list[Any] = [*layers_of(network)]
    for layer in layers:
        layer.parametrizations.weight[0].register_forward_hook(
            lambda *arguments: seen.append(torch.is_autocast_enabled("cpu"))
        )
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 3, 16, 16))
    assert seen == [False] * len(layers)


@pytest.mark.parametrize(("resolution", "height", "width"), [(16, 4, 20), (32, 24, 8), (32, 32, 32), (64, 48, 16)])
def test_unet_takes_every_multiple(resolution: int, height: int, width: int) -> None:
    network = UNetDiscriminator(2, resolution)
    pixel_logits, image_logit = network(torch.rand(2, 3, height, width))
    assert pixel_logits.shape == (2, 1, height, width)
    assert image_logit.shape == (2, 1)
    assert pixel_logits.std() > 0


def test_bottleneck_keeps_its_scale_with_the_size() -> None:
    """A flat image: inside, each position of the bottleneck says the same, however many there are."""
    network = UNetDiscriminator(2, 16).eval()
    small, large = (network(torch.full((1, 3, side, side), 0.5))[1] for side in (64, 256))
    torch.testing.assert_close(small, large, rtol=0.1, atol=0)


def test_patchgan_sees_70_pixels() -> None:
    """Isola et al.'s 70x70 patches; without BatchNorm, whose statistics see everything."""
    network = PatchDiscriminator(2)
    for index, module in enumerate(network.layers):
        if isinstance(module, nn.BatchNorm2d):
            network.layers[index] = nn.Identity()
    image = torch.rand(1, 3, 128, 128, requires_grad=True)
    (logits,) = network(image)
    assert logits.shape == (1, 1, 14, 14)
    (gradient,) = torch.autograd.grad(logits[0, 0, 7, 7], image)
    rows, columns = (gradient[0].abs().sum(0) > 0).nonzero(as_tuple=True)
    assert int(rows.max() - rows.min()) + 1 == 70
    assert int(columns.max() - columns.min()) + 1 == 70


def test_patchgan_is_latent_diffusions() -> None:
    network = PatchDiscriminator(16)
    assert not list(network.buffers())
    for module in network.layers:
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 1000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert module.bias.abs().max() == 0
    seen: list[Tensor] = []
    norms = [module for module in network.layers if isinstance(module, nn.BatchNorm2d)]
    norms[0].register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0].clone(), output.clone()]))
    network.eval()(torch.rand(2, 3, 32, 32))
    x = seen[0].detach().numpy()
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * norms[0].weight.detach().numpy()[:, None, None]
    np.testing.assert_allclose(seen[1].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("padding", "stride"), [(2, 1), (1, 2)])
def test_blur_is_scipys_upfirdn(padding: int, stride: int) -> None:
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    for axis in (2, 3):
        filtered = scipy.signal.upfirdn(np.array([1, 3, 3, 1]) / 8, expected, axis=axis)
        expected = np.moveaxis(np.moveaxis(filtered, axis, 0)[3:-3:stride], 0, axis)  # whole windows
    actual = Blur(padding, stride).double()(x)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("batch", "groups"), [(1, [1]), (2, [2]), (4, [4]), (8, [4, 4]), (6, [3, 3]), (5, [3, 2])])
def test_minibatch_deviation_is_numpys(batch: int, groups: list[int]) -> None:
    x = torch.randn(batch, 3, 4, 4, dtype=torch.float64)
    statistic = minibatch_deviation(x)
    expected = [
        np.full((len(group), 1, 4, 4), np.sqrt(group.var(axis=0) + 1e-8).mean())
        for group in np.split(x.numpy(), np.cumsum(groups)[:-1])
    ]
    np.testing.assert_allclose(statistic.numpy(), np.concatenate(expected), rtol=1e-12)


def test_residual_block_is_scipys() -> None:
    block: Any = ResidualBlock(1, 1).double()
    nn.init.normal_(block.conv1.bias)
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    first, second, shortcut = (
        layer.weight.detach().numpy()[0, 0] for layer in (block.conv1, block.conv2, block.conv_shortcut)
    )
    blur = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64

    def activation(value: np.ndarray) -> np.ndarray:
        return np.where(value > 0, value, 0.2 * value) * np.sqrt(2)

    image = x.numpy()[0, 0]
    hidden = activation(scipy.signal.correlate2d(image, first / 3, "same") + block.conv1.bias.item())
    blurred = scipy.signal.convolve2d(np.pad(hidden, 2), blur, "valid")
    hidden = activation(scipy.signal.correlate2d(blurred, second / 3, "valid")[::2, ::2])
    skipped = scipy.signal.convolve2d(np.pad(image, 1), blur, "valid")[::2, ::2] * shortcut
    actual = block(x)[0, 0].detach().numpy()
    np.testing.assert_allclose(actual, (hidden + skipped) / np.sqrt(2), rtol=1e-12, atol=1e-12)


def test_learning_rates_are_equalised() -> None:
    """Weights are N(0, 1) themselves, and the layers still keep the variance."""
    conv, linear = EqualizedConv2d(64, 64, 3, padding=1), EqualizedLinear(512, 512)
    layers: list[tuple[Any, Tensor]] = [(conv, torch.randn(2, 64, 16, 16)), (linear, torch.randn(64, 512))]
    for layer, x in layers:
        assert layer.weight.std().item() == pytest.approx(1, rel=0.02)
        assert layer.bias.abs().max() == 0
        output = layer(x)
        inside = output[:, :, 1:-1, 1:-1] if output.dim() == 4 else output
        assert inside.std().item() == pytest.approx(1, rel=0.05)


def test_training_improves_the_unets_singular_vectors() -> None:
    network = UNetDiscriminator(2, 32)
    disturb(network)
    before = [buffer.clone() for buffer in network.buffers()]
    network(torch.rand(1, 3, 32, 32))
    assert any(not torch.equal(old, new) for old, new in zip(before, network.buffers(), strict=True))
