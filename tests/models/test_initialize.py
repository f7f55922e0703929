"""Does the residual initialization carry the image through, and leave the other alone?"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from litevae import LiteVAE
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.initialize import INITIAL_LOGVAR, initialize


def model(**overrides: object) -> LiteVAE:
    torch.manual_seed(0)
    return LiteVAE.from_preset(
        "S", **{"block_out_channels": (32, 32, 64, 64), "decoder_outer_norm": False, **overrides}
    )


def baseline(**arguments: Any) -> StableDiffusionVAE:
    torch.manual_seed(0)
    return StableDiffusionVAE.from_architecture(block_out_channels=(32, 32, 64, 64), **arguments)


@pytest.mark.parametrize(
    "make",
    [
        model,
        partial(model, use_quant_conv=True),
        partial(model, decoder_normalization="smc"),
        partial(model, extraction="nafnet", nafnet_width=32, nafnet_blocks=4),
        partial(model, shared_extraction=True, aggregation="vit"),
        partial(model, encoder_normalization="smc"),
        partial(model, encoder_normalization="none", wavelet_levels=(2, 3)),
        baseline,
        partial(baseline, use_quant_conv=False),
    ],
)
@torch.no_grad()
def test_latent_carries_the_image_with_little_noise(make: Callable[[], Any]) -> None:
    """The signal in the latent is far above the noise; with PyTorch's own weights it is far below."""
    images = torch.rand(8, 3, 2, 2).mul(2).sub(1).repeat_interleave(16, 2).repeat_interleave(16, 3)
    vae = make()

    def signal_to_noise() -> float:
        posterior = vae.encode(images).latent_dist
        return (posterior.mean.std(0).mean() / posterior.std.mean()).item()

    assert signal_to_noise() < 1
    initialize(vae, "residual")
    assert signal_to_noise() > 2
    assert vae.encode(images).latent_dist.logvar.mean().item() == pytest.approx(INITIAL_LOGVAR, abs=0.5)


@pytest.mark.parametrize("normalization", ["group_norm", "smc"])
@torch.no_grad()
def test_decoder_starts_linear_in_the_latent(normalization: str) -> None:
    """Every ResBlock adds nothing, so two latents' images add up (without the SiLU before the last convolution)."""
    vae = model(decoder_normalization=normalization, mid_block_add_attention=False)
    initialize(vae, "residual")
    vae.decoder.conv_norm_out = torch.nn.Identity()
    a, b = torch.randn(2, 1, 4, 4, 4)
    zero = vae.decoder(torch.zeros_like(a))
    added = vae.decoder(a) + vae.decoder(b) - zero
    torch.testing.assert_close(vae.decoder(a + b), added, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_baseline_starts_as_litevae_does() -> None:
    """Its resnets add nothing, and a shortcut or a resampling on the way keeps the variance of white noise."""
    vae = baseline(latent_channels=16).vae
    initialize(StableDiffusionVAE(vae), "residual")
    x = torch.randn(2, 64, 24, 24)
    for resnet in (vae.encoder.down_blocks[3].resnets[0], vae.decoder.up_blocks[0].resnets[2]):
        torch.testing.assert_close(resnet(x, None), x, rtol=0, atol=0)
    narrowed = vae.decoder.up_blocks[2].resnets[0]
    torch.testing.assert_close(narrowed(x, None), narrowed.conv_shortcut(x), rtol=0, atol=0)
    convolutions = [narrowed.conv_shortcut, vae.decoder.conv_in, vae.encoder.conv_in, vae.post_quant_conv]
    convolutions += [vae.encoder.down_blocks[0].downsamplers[0].conv, vae.decoder.up_blocks[0].upsamplers[0].conv]
    for convolution in convolutions:
        noise = torch.randn(8, convolution.in_channels, 24, 24)
        assert convolution(noise).var().item() == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize("make", [partial(model, decoder_normalization="smc"), baseline])
def test_every_parameter_still_gets_a_gradient_within_two_steps(make: Callable[[], Any]) -> None:
    vae = make()
    initialize(vae, "residual")
    optimizer = torch.optim.SGD(vae.parameters(), lr=1e-3)
    x = torch.rand(1, 3, 32, 32)
    moved = {name: value.detach().clone() for name, value in vae.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        (vae(x, sample_posterior=True).sample - x).square().sum().backward()
        optimizer.step()
    still = [name for name, value in vae.named_parameters() if torch.equal(value, moved[name])]
    assert not still


def test_pytorch_s_own_is_untouched() -> None:
    vae, untouched = model(), model()
    initialize(vae, "pytorch")
    torch.testing.assert_close(vae.state_dict(), untouched.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="how must be one of 'pytorch', 'residual', 'wavelet', got 'he'"):
        initialize(vae, "he")
    with pytest.raises(ValueError, match=r"how must be 'pytorch' or 'residual' for a StableDiffusionVAE, .* 'wavelet'"):
        initialize(baseline(), "wavelet")


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (lambda: LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8)), "residual"),
        (partial(baseline, layers_per_block=1), "residual"),
        (partial(model, layers_per_block=1), "wavelet"),
    ],
)
def test_a_seed_means_one_model_in_any_layout(make: Callable[[], Any], how: str) -> None:
    models = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        vae = make().to(memory_format=memory_format)
        torch.manual_seed(0)
        initialize(vae, how)
        models.append(vae.state_dict())
    one, two = models
    drawn = [name for name in one if name.endswith(("conv_in.weight", "conv_out.weight", "shortcut.weight"))]
    assert len(drawn) > 5
    assert all(torch.equal(one[name], two[name]) for name in drawn)
