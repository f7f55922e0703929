"""Is the baseline diffusers' AutoencoderKL, with the paper's parameter counts and what LiteVAE's forward gives?"""

from __future__ import annotations

import copy
import json

import pytest
import torch
from diffusers import AutoencoderKL

from litevae.config import LiteVAEConfig
from litevae.models.baseline import VAE_SMALL_CHANNELS, StableDiffusionVAE
from litevae.models.decoder import Decoder

from .precision import LAYERS, exact, relative_error, rounded_once

WIDTHS = (8, 8, 16, 16)


@pytest.fixture
def make_baseline():
    """make_baseline(**arguments): a narrow one in eval mode whose every parameter is random, biases and gains too."""

    def make(**arguments: object) -> StableDiffusionVAE:
        torch.manual_seed(0)
        model = StableDiffusionVAE.from_architecture(
            **{"block_out_channels": WIDTHS, "layers_per_block": 1, **arguments}
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return make


def parameter_count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_forward_is_diffusers(make_baseline, image):
    """Its own forward with the same noise, bit for bit."""
    model = make_baseline()
    vae = copy.deepcopy(model.vae)
    for sample_posterior in (False, True):
        seeded = [torch.Generator().manual_seed(5) for _ in range(2)]
        output = model(image, sample_posterior=sample_posterior, generator=seeded[0])
        expected = vae(image, sample_posterior=sample_posterior, generator=seeded[1]).sample
        assert torch.equal(output.sample, expected)
        assert output.wavelet is None
    posterior = vae.encode(image).latent_dist
    assert torch.equal(output.latent_dist.mean, posterior.mean)
    assert torch.equal(output.latent_dist.var, posterior.var)
    torch.testing.assert_close(output.latent_dist.kl(), posterior.kl())
    assert torch.equal(model.encode(image).latent_dist.mode(), posterior.mode())
    assert torch.equal(model.decode(output.latent).sample, output.sample)


def test_a_loaded_autoencoder_of_another_factor(tmp_path):
    """LDM's f4, say: three widths, and images whose sides 4 divides."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    vae = AutoencoderKL(block_out_channels=(8, 8, 8), norm_num_groups=8, layers_per_block=1, **blocks)
    vae.save_pretrained(tmp_path)
    model = StableDiffusionVAE.from_pretrained(tmp_path).eval()
    assert model.downsampling == 4
    output = model(torch.zeros(1, 3, 20, 12))
    assert (output.latent.shape, output.sample.shape) == ((1, 4, 5, 3), (1, 3, 20, 12))
    with pytest.raises(ValueError, match="image must have a height and a width that are multiples of 4"):
        model(torch.zeros(1, 3, 20, 10))


def test_a_generator_for_each_image(make_baseline, image):
    """The noise of an image does not depend on the batch it is in."""
    model = make_baseline()

    def latents(images: torch.Tensor, *seeds: int) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return model(images, sample_posterior=True, generator=generators).latent

    whole = latents(image, 1, 2, 3)
    parts = [latents(image[:1], 1), latents(image[1:], 2, 3)]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-5, atol=1e-5)
    assert (whole - latents(image, 3, 2, 1)).abs().max() > 0.1


def test_uint8_stands_for_minus_one_to_one(make_baseline, image):
    model = make_baseline()
    pixels = ((image + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(model(pixels).sample, model(pixels / 127.5 - 1).sample)


def test_channels_last_gives_the_same(make_baseline, image, assert_same):
    model, image = make_baseline().double(), image.double()
    expected = model(image).sample
    output = model.to(memory_format=torch.channels_last)(image).sample
    assert_same(output, expected, 1e-12)


@torch.no_grad()
def test_autocast_keeps_the_posterior_in_float32(make_baseline, image):
    model = make_baseline()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(image)
    assert output.sample.dtype == torch.bfloat16
    assert output.latent_dist.kl().dtype == torch.float32
    expected = exact(model)(image.double()).sample
    once = relative_error(rounded_once(model)(image.bfloat16().double()).sample, expected)
    assert 0 < relative_error(output.sample, expected) < LAYERS * once


def test_parameters_are_the_papers():
    with torch.device("meta"):
        model = StableDiffusionVAE.from_architecture()
        small = StableDiffusionVAE.from_architecture(encoder_channels=VAE_SMALL_CHANNELS)
        plain = StableDiffusionVAE.from_architecture(use_quant_conv=False)
    assert parameter_count(model.encoder, model.quant_conv) == 34_163_664
    assert parameter_count(model.decoder) == 49_490_179
    assert parameter_count(model) == 83_653_863
    assert parameter_count(plain) == 83_653_863 - (8 * 8 + 8) - (4 * 4 + 4)
    assert parameter_count(small.encoder, small.quant_conv) == 6_793_104
    assert abs(6_793_104 / 6.75e6 - 1) < 0.007
    assert parameter_count(small.decoder) == 49_490_179


def test_the_decoder_is_litevae_s(assert_same):
    """The same parameters by the same names give the same image, where 32 divides the widths."""
    widths = (32, 32, 64, 64)
    torch.manual_seed(0)
    baseline = StableDiffusionVAE.from_architecture(block_out_channels=widths)
    ours = Decoder(LiteVAEConfig(block_out_channels=widths))
    ours.load_state_dict(baseline.decoder.state_dict())
    latent = torch.randn(2, 4, 3, 4)
    assert_same(ours(latent), baseline.decoder(latent))
    assert baseline.last_layer is baseline.decoder.conv_out.weight
    assert baseline.last_layer.shape == (3, 32, 3, 3)


@pytest.mark.parametrize("encoder_channels", [None, (8, 8, 16, 24)])
def test_save_and_load(make_baseline, image, tmp_path, encoder_channels):
    model = make_baseline(encoder_channels=encoder_channels, latent_channels=3)
    model.save_pretrained(tmp_path)
    expected = model(image).sample
    assert torch.equal(StableDiffusionVAE.from_pretrained(tmp_path).eval()(image).sample, expected)
    if encoder_channels is None:
        assert torch.equal(AutoencoderKL.from_pretrained(tmp_path)(image).sample, expected)
    else:  # diffusers has no place for these widths, and must not take the folder for another model
        with pytest.raises((ValueError, RuntimeError), match="encoder"):
            AutoencoderKL.from_pretrained(tmp_path)


def test_loading_refuses_what_does_not_fit(make_baseline, make_model, tmp_path):
    model = make_baseline()
    model.save_pretrained(tmp_path / "baseline")
    make_model().save_pretrained(tmp_path / "litevae")
    with pytest.raises(ValueError, match="config must be that of an AutoencoderKL, got one of LiteVAE"):
        StableDiffusionVAE.from_pretrained(tmp_path / "litevae")
    with pytest.raises(FileNotFoundError, match="must be an existing folder"):
        StableDiffusionVAE.from_pretrained(tmp_path / "nowhere")
    config = tmp_path / "baseline" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "encoder_channels": [8, 8, 16, 24]}))
    with pytest.raises(ValueError, match=r"encoder\.conv_norm_out\.bias must have shape|encoder\.down_blocks\.3"):
        StableDiffusionVAE.from_pretrained(tmp_path / "baseline")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"encoder_channels": (8, 8, 8)}, ValueError, "encoder_channels must have 4 entries"),
        ({"encoder_channels": (8, 8, 8, 0)}, ValueError, r"encoder_channels\[3\] must be at least 1, got 0"),
        ({"encoder_channels": (8, 8, 8, 1.5)}, TypeError, r"encoder_channels\[3\] must be an int"),
        ({"block_out_channels": (8, 8)}, ValueError, "block_out_channels must have 4 entries"),
        ({"latent_channels": 0}, ValueError, "latent_channels must be at least 1, got 0"),
    ],
)
def test_bad_architectures_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        StableDiffusionVAE.from_architecture(**arguments)


def test_bad_images_are_refused_as_litevae_does(make_baseline):
    with pytest.raises(ValueError, match="multiples of 8"):
        make_baseline()(torch.zeros(1, 3, 20, 16))
    with pytest.raises(ValueError, match="latent must have 4 channels"):
        make_baseline().decode(torch.zeros(1, 3, 2, 2))


def gradients(model: torch.nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    output = model(image, sample_posterior=True, generator=torch.Generator().manual_seed(1))
    loss = (output.sample - image).abs().mean() + output.latent_dist.kl().mean()
    return list(torch.autograd.grad(loss, list(model.parameters())))


def test_checkpointing_and_compilation_change_no_gradient(make_baseline, image, assert_same):
    model = make_baseline().train()
    expected = gradients(model, image)
    model.enable_gradient_checkpointing()
    assert all(map(torch.equal, gradients(model, image), expected))
    model.disable_gradient_checkpointing()
    torch.compiler.reset()
    for part in (model.encoder, model.decoder):
        part.compile(fullgraph=True, dynamic=False, backend="aot_eager")
    for ours, theirs in zip(gradients(model, image), expected, strict=True):
        assert_same(ours, theirs, 1e-4)
