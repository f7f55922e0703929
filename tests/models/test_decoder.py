"""Is the decoder Stable Diffusion's, given the same weights?"""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from litevae import LiteVAE, LiteVAEConfig
from litevae.models.decoder import Decoder, SelfAttention


def oracle(widths: tuple[int, ...], **arguments: object) -> AutoencoderKL:
    torch.manual_seed(0)
    up, down = ("UpDecoderBlock2D",) * 4, ("DownEncoderBlock2D",) * 4
    vae = AutoencoderKL(block_out_channels=widths, up_block_types=up, down_block_types=down, **arguments)
    with torch.no_grad():
        for parameter in vae.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return vae.eval()


@pytest.mark.parametrize(("widths", "layers", "latents"), [((32, 64, 64, 96), 1, 4), ((32, 32, 64, 64), 2, 12)])
@pytest.mark.parametrize("attention", [True, False])
def test_decoder_is_diffusers_given_its_weights(widths, layers, latents, attention, assert_same):
    vae = oracle(widths, layers_per_block=layers, latent_channels=latents, mid_block_add_attention=attention)
    config = LiteVAEConfig(
        block_out_channels=widths,
        layers_per_block=layers,
        latent_channels=latents,
        mid_block_add_attention=attention,
    )
    decoder = Decoder(config)
    decoder.load_state_dict(vae.decoder.state_dict())
    latent = torch.randn(2, latents, 4, 6)
    assert_same(decoder(latent), vae.decoder(latent))


def test_quant_convs_have_diffusers_names_and_places(assert_same):
    widths = (32, 32, 32, 32)
    vae = oracle(widths, layers_per_block=1, latent_channels=4)
    model = LiteVAE.from_preset("S", block_out_channels=widths, layers_per_block=1, use_quant_conv=True).eval()
    model.decoder.load_state_dict(vae.decoder.state_dict())
    model.quant_conv.load_state_dict(vae.quant_conv.state_dict())
    model.post_quant_conv.load_state_dict(vae.post_quant_conv.state_dict())
    latent = torch.randn(1, 4, 4, 4)
    assert_same(model.decode(latent).sample, vae.decode(latent).sample)
    image = torch.rand(1, 3, 16, 16)
    assert_same(model.encode(image).latent_dist.mean, vae.quant_conv(model.encoder(image))[:, :4])


def test_the_default_decoder_has_stable_diffusions_parameters_under_its_names():
    with torch.device("meta"):
        decoder = LiteVAE.from_preset("B").decoder
        vae = oracle((128, 256, 512, 512), layers_per_block=2, latent_channels=4)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 49_490_179
    shapes = {name: tensor.shape for name, tensor in decoder.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in vae.decoder.state_dict().items()}


def test_self_attention_by_hand_in_float64(assert_same):
    torch.manual_seed(0)
    layer = SelfAttention(6, has_norm=False).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    expected = x.clone()
    for index, tokens in enumerate(x.flatten(2).transpose(1, 2)):  # [15, 6]
        scores = layer.to_q(tokens) @ layer.to_k(tokens).T / 6**0.5
        attended = layer.to_out[0](torch.softmax(scores, dim=1) @ layer.to_v(tokens))
        expected[index] += attended.T.reshape(6, 3, 5)
    assert_same(layer(x), expected, 1e-12)


@pytest.mark.parametrize("normalization", ["group_norm", "smc", "none"])
@pytest.mark.parametrize("outer", [True, False, None])
def test_norms_are_where_the_config_says(make_model, normalization, outer):
    decoder = make_model(decoder_normalization=normalization, decoder_outer_norm=outer).decoder
    has_outer = normalization == "group_norm" if outer is None else outer
    names = set(decoder.state_dict())
    assert ("conv_norm_out.weight" in names) == has_outer
    assert ("mid_block.attentions.0.group_norm.weight" in names) == has_outer
    assert ("up_blocks.0.resnets.0.norm1.weight" in names) == (normalization == "group_norm")
    assert ("up_blocks.0.resnets.0.conv1.scales" in names) == (normalization == "smc")


def test_without_an_outer_norm_a_silu_stays_before_the_last_convolution(make_model, assert_same):
    decoder = make_model(decoder_normalization="smc").decoder
    seen = {}
    decoder.up_blocks[-1].register_forward_hook(lambda module, args, output: seen.update(before=output))
    image = decoder(torch.randn(1, 4, 2, 2))
    expected = F.conv2d(F.silu(seen["before"]), decoder.conv_out.weight, decoder.conv_out.bias, padding=1)
    assert_same(image, expected)


def test_float16_decodes_where_activations_are_near_its_limit(make_model) -> None:
    """As those of Stable Diffusion XL's decoder are, whose images turn black: statistics of norms are in float32."""
    model = make_model().eval()
    latent = torch.randn(1, model.latent_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    largest: list[float] = []
    for layer in (model.decoder.conv_in, model.decoder.mid_block):
        layer.register_forward_hook(lambda module, inputs, output: largest.append(output.abs().max().item()))
    with torch.inference_mode():
        model.decode(latent)
        for parameter in model.decoder.conv_in.parameters():
            parameter *= 6e4 / largest[0]
        expected = model.decode(latent).sample
        actual = model.half().decode(latent.half()).sample
    assert min(largest[2:]) > 5e4
    assert (actual.float() - expected).norm() < 0.02 * expected.norm()
