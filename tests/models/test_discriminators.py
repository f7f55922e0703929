"""Can every discriminator be trained, frozen, penalised and run in half precision, and what does its config refuse?"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from litevae.losses.adversarial import r1_penalty
from litevae.models.discriminators import (
    DISCRIMINATOR_KINDS,
    DiscriminatorConfig,
    UNetDiscriminator,
    build_discriminator,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny(kind: str) -> nn.Module:
    return build_discriminator(DiscriminatorConfig(kind=kind, channels=2, resolution=32))


every_kind = pytest.mark.parametrize("kind", DISCRIMINATOR_KINDS)


@pytest.mark.parametrize(
    ("kind", "channels", "resolution", "count"),
    [
        ("unet", 64, 256, 44_067_586),  # 44.07 M
        ("unet", 64, 128, 31_481_602),
        ("patchgan", 64, 256, 2_765_633),  # latent diffusion's
        ("stylegan", 64, 256, 24_001_089),
        ("stylegan", 128, 1024, 29_012_513),  # what StyleGAN2's own code prints of its discriminator
    ],
)
def test_parameter_counts(kind: str, channels: int, resolution: int, count: int) -> None:
    with torch.device("meta"):
        network = build_discriminator(DiscriminatorConfig(kind=kind, channels=channels, resolution=resolution))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_wrong_images() -> None:
    with pytest.raises(ValueError, match=r"image must be \[B, 3, H, W\], H and W multiples of 64, .* \[1, 3, 96, 64\]"):
        UNetDiscriminator(1, 256)(torch.zeros(1, 3, 96, 64))
    with pytest.raises(ValueError, match=r"image must .* H and W multiples of 8, .*discriminator.resolution=32 needs"):
        tiny("unet")(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"image must be \[B, 3, H, W\], H and W at least 24, got .* \[1, 3, 24, 23\]"):
        tiny("patchgan")(torch.zeros(1, 3, 24, 23))
    with pytest.raises(ValueError, match=r"image must be \[B, 3, 32, 32\], .* set discriminator.resolution"):
        tiny("stylegan")(torch.zeros(1, 3, 64, 64))
    for kind in ("patchgan", "stylegan"):
        with pytest.raises(ValueError, match="parts must divide the batch of 3, got 2"):
            tiny(kind)(torch.zeros(3, 3, 32, 32), parts=2)


@every_kind
@pytest.mark.parametrize("batch", [2, 5])
def test_parts_get_the_logits_they_get_alone(kind: str, batch: int) -> None:
    network = tiny(kind).eval()
    images, reconstructions = torch.rand(batch, 3, 32, 32), torch.rand(batch, 3, 32, 32) - 0.5
    together = network(torch.cat([images, reconstructions]), parts=2)
    alone = [torch.cat(pair) for pair in zip(network(images), network(reconstructions), strict=True)]
    torch.testing.assert_close(list(together), alone, rtol=1e-4, atol=1e-5)
    mixed = network(torch.cat([images, reconstructions]))
    is_mixed = (mixed[0] - alone[0]).abs().max() > 1e-3
    assert is_mixed == (kind != "unet")


@every_kind
def test_eval_changes_no_state(kind: str) -> None:
    """The trainer runs it for the generator in eval, without gradients for the parameters."""
    network = tiny(kind).eval().requires_grad_(False)
    before = copy.deepcopy([*network.parameters(), *network.buffers()])
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    first, second = network(image), network(image)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.stack([logits.mean() for logits in second]).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    after = [*network.parameters(), *network.buffers()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


@every_kind
def test_state_dict_is_the_whole_network(kind: str) -> None:
    network, other = tiny(kind), tiny(kind)
    other.load_state_dict(network.state_dict())
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network(image), other(image), rtol=0, atol=0)  # and the same power iteration


@every_kind
def test_r1_has_the_gradient_of_finite_differences(kind: str) -> None:
    """Double backward through every layer: along one direction in the space of all parameters."""
    network = tiny(kind).double().eval()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    parameters = list(network.parameters())
    direction = [torch.randn_like(parameter) * parameter.abs().mean() for parameter in parameters]

    def penalty(step: float) -> Tensor:
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, along in zip(moved.parameters(), direction, strict=True):
                parameter.add_(step * along)
        return r1_penalty(moved(image), image).detach()

    gradients = torch.autograd.grad(r1_penalty(network(image), image), parameters, allow_unused=True)
    expected = (penalty(1e-7) - penalty(-1e-7)) / 2e-7
    products = [(g * along).sum() for g, along in zip(gradients, direction, strict=True) if g is not None]
    actual = torch.stack(products).sum()
    assert expected.abs() > 1e-8
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-9)


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_channels_last(kind: str, dtype: torch.dtype) -> None:
    network = tiny(kind)
    exact = copy.deepcopy(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.autocast("cpu", dtype):
        logits = network(image.contiguous(memory_format=torch.channels_last))
    expected = exact(image)
    for half, full in zip(logits, expected, strict=True):
        assert half.dtype == dtype
        rounding = 60 * torch.finfo(dtype).eps  # about as many roundings one after the other
        torch.testing.assert_close(half.float(), full, rtol=rounding, atol=rounding * full.abs().max().item())
    torch.stack([half.float().mean() for half in logits]).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())  # type: ignore[arg-type]
    for ours, buffer in zip(network.buffers(), exact.buffers(), strict=True):  # the power iteration was in float32
        torch.testing.assert_close(ours, buffer, rtol=1e-5, atol=1e-6)


@every_kind
def test_compiles_into_one_graph(kind: str) -> None:
    network = tiny(kind).eval()
    image = torch.rand(2, 3, 32, 32)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cnn"}, "discriminator.kind must be one of 'unet', 'patchgan', 'stylegan', got 'cnn'"),
        ({"channels": 0}, "discriminator.channels must be at least 1, got 0"),
        ({"resolution": 96}, "discriminator.resolution must be a power of two from 16 on, got 96"),
        ({"resolution": 8}, "discriminator.resolution must be a power of two from 16 on, got 8"),
        ({"learning_rate": 0.0}, "discriminator.learning_rate must be finite and above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "discriminator.learning_rate must be finite and above 0, got nan"),
        ({"betas": [0.5]}, "discriminator.betas must be two numbers, each at least 0 and below 1, got [0.5]"),
        ({"betas": [0.5, 1.0]}, "discriminator.betas must be two numbers"),
        ({"r1_weight": -1.0}, "discriminator.r1_weight must be finite and at least 0, got -1.0"),
        ({"r1_weight": float("inf")}, "discriminator.r1_weight must be finite and at least 0, got inf"),
        ({"r1_every": 0}, "discriminator.r1_every must be at least 1, got 0"),
    ],
)
def test_wrong_configs(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        DiscriminatorConfig(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
