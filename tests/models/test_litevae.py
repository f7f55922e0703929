"""Is LiteVAE the sum of its parts, in every mode, precision and layout?"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import pywt
import torch

from litevae import LiteVAE, LiteVAEOutput
from litevae_kernels import haar_dwt2d

from .precision import LAYERS, exact, relative_error, rounded_once

DECODERS = [
    {},
    {"decoder_normalization": "smc"},
    {"decoder_normalization": "smc", "decoder_outer_norm": True, "mid_block_add_attention": False},
    {"output_type": "wavelet", "use_quant_conv": True},
]


def dwt(image: torch.Tensor) -> torch.Tensor:
    low, details = pywt.dwt2(image.detach().numpy(), "haar")
    return torch.from_numpy(np.concatenate([low, *details], axis=1)) / 2


def idwt(wavelet: torch.Tensor) -> torch.Tensor:
    low, *details = np.split(2 * wavelet.detach().numpy(), 4, axis=1)
    return torch.from_numpy(pywt.idwt2((low, tuple(details)), "haar"))


@pytest.mark.parametrize("output_type", ["image", "wavelet"])
def test_forward_is_encode_then_decode(make_model, image, assert_same, output_type):
    model = make_model(output_type=output_type)
    output = model(image)
    posterior = model.encode(image).latent_dist
    assert_same(output.latent, posterior.mode())
    assert_same(output.latent, model.encoder(image)[:, :4])
    assert_same(output.sample, model.decode(posterior.mode()).sample)
    assert_same(output.latent_dist.kl(), posterior.kl())
    assert output.sample.shape == image.shape

    decoded = model.decoder(output.latent)
    if output_type == "image":
        assert_same(output.sample, decoded)
        assert output.wavelet is None
    else:
        assert decoded.shape == (3, 12, 16, 12)
        assert_same(output.wavelet, dwt(output.sample))
        assert_same(output.wavelet, decoded)
        assert_same(output.sample, idwt(decoded))


def test_forward_decodes_a_sample_if_asked(make_model, image, assert_same):
    model = make_model()
    output = model(image, sample_posterior=True, generator=torch.Generator().manual_seed(3))
    moments = model.encoder(image)
    noise = torch.randn(3, 4, 4, 3, generator=torch.Generator().manual_seed(3))
    assert_same(output.latent, moments[:, :4] + (moments[:, 4:] / 2).exp() * noise)
    assert_same(output.sample, model.decode(output.latent).sample)
    assert not torch.allclose(output.latent, model(image).latent, atol=1e-2)


@pytest.mark.parametrize("output_type", ["image", "wavelet"])
def test_tuples_hold_the_same_as_the_outputs(make_model, image, output_type):
    model = make_model(output_type=output_type)
    output = model(image)
    sample, wavelet, posterior, latent = model(image, return_dict=False)
    assert torch.equal(sample, output.sample)
    assert (wavelet is None) == (output.wavelet is None) == (output_type == "image")
    assert output_type == "image" or torch.equal(wavelet, output.wavelet)
    assert torch.equal(latent, output.latent)
    assert torch.equal(posterior.kl(), output.latent_dist.kl())
    assert torch.equal(model.encode(image, return_dict=False)[0].mean, model.encode(image).latent_dist.mean)
    assert torch.equal(model.decode(latent, return_dict=False)[0], model.decode(latent).sample)


def test_channel_counts_other_than_rgb(make_model, assert_same):
    model = make_model(in_channels=1, out_channels=2, latent_channels=3, output_type="wavelet")
    output = model(torch.rand(1, 1, 16, 8))
    assert output.latent.shape == (1, 3, 2, 1)
    assert output.sample.shape == (1, 2, 16, 8)
    assert_same(output.wavelet, dwt(output.sample))


@pytest.mark.parametrize("arguments", DECODERS)
def test_a_batch_is_its_samples(make_model, image, assert_same, arguments):
    model = make_model(**arguments)
    batch = model(image)
    for index in range(3):
        single = model(image[index : index + 1])
        assert_same(single.sample, batch.sample[index : index + 1])
        assert_same(single.latent, batch.latent[index : index + 1])


@pytest.mark.parametrize("arguments", DECODERS)
def test_channels_last_gives_the_same(make_model, image, assert_same, arguments):
    model, image = make_model(**arguments).double(), image.double()
    expected = model(image)
    model = model.to(memory_format=torch.channels_last)
    output = model(image.to(memory_format=torch.channels_last))
    assert_same(output.sample, expected.sample, 1e-12)
    if expected.wavelet is not None:
        assert_same(output.wavelet, expected.wavelet, 1e-12)
    assert output.sample.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def in_precisions(make_model, image):
    """in_precisions(**arguments): a float32 model, its float64 output, and that after rounding image and parameters."""

    def run(**arguments: object) -> tuple[LiteVAE, LiteVAEOutput, LiteVAEOutput]:
        model = make_model(**arguments)
        return model, exact(model)(image.double()), rounded_once(model)(image.bfloat16().double())

    return run


def tensors(output: LiteVAEOutput) -> list[str]:
    """The fields that hold tensors; only a decoder that ends in sub-bands gives a wavelet."""
    return [field for field in ("sample", "wavelet", "latent") if field in output]


# In bfloat16 each of some forty layers rounds as the parameters were rounded once; in float32 2^16 times less.
@pytest.mark.parametrize("arguments", DECODERS)
def test_bfloat16_and_float32_err_by_their_rounding_alone(in_precisions, image, arguments):
    model, expected, rounded = in_precisions(**arguments)
    half = copy.deepcopy(model).bfloat16()(image.bfloat16())
    single = model(image)
    for field in tensors(expected):
        assert half[field].dtype == torch.bfloat16
        once = relative_error(rounded[field], expected[field])
        assert 0 < relative_error(half[field], expected[field]) < LAYERS * once
        assert 0 < relative_error(single[field], expected[field]) < LAYERS * once / 2**12  # 2^16 times the precision


@pytest.mark.parametrize("arguments", DECODERS)
def test_autocast_computes_in_bfloat16_and_trains_in_float32(in_precisions, image, arguments):
    model, expected, rounded = in_precisions(**arguments)
    with torch.autocast("cpu", torch.bfloat16):
        output = model.train()(image)
        loss = output.sample.float().square().mean() + output.latent_dist.kl().mean() * 1e-3
    loss.backward()
    for field in tensors(expected):
        assert output[field].dtype == torch.bfloat16
        once = relative_error(rounded[field], expected[field])
        assert 0 < relative_error(output[field], expected[field]) < LAYERS * once
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("arguments", DECODERS)
@pytest.mark.parametrize("sample_posterior", [True, False])
def test_gradients_reach_every_parameter_and_the_image(make_model, image, arguments, sample_posterior):
    model = make_model(**arguments).train()
    image = image.clone().requires_grad_()
    output = model(image, sample_posterior=sample_posterior, generator=torch.Generator().manual_seed(0))
    wavelet = haar_dwt2d(output.sample, 1, scaling="mean")[0] if output.wavelet is None else output.wavelet
    (output.sample.square().mean() + wavelet.abs().mean() + output.latent_dist.kl().mean()).backward()
    # The key bias moves all scores of a query alike, which softmax ignores: its gradient is zero but for rounding.
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in without if not name.endswith("to_k.bias")] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert image.grad.abs().amin(dim=(0, 1)).min() > 0


def test_gradient_is_the_slope(make_model, image):
    """Through the whole autoencoder, in float64, along a random direction of all parameters."""
    model = make_model(decoder_normalization="smc", output_type="wavelet", use_quant_conv=True).double()
    image = image[:1].double()

    def loss() -> torch.Tensor:
        output = model(image, sample_posterior=True, generator=torch.Generator().manual_seed(0))
        return (output.sample - image).square().mean() + 1e-3 * output.latent_dist.kl().mean()

    loss().backward()
    directions = [torch.randn_like(parameter) for parameter in model.parameters()]
    slope = sum((p.grad * d).sum() for p, d in zip(model.parameters(), directions, strict=True))
    step, values = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
            values.append(loss())
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), slope, rtol=1e-5, atol=0)


def test_dropout_reaches_encoder_and_decoder(make_model, image):
    model = make_model(dropout=0.3).train()
    assert not torch.allclose(model.encoder(image), model.encoder(image), atol=1e-3)
    latent = model.eval().encode(image).latent_dist.mode()
    assert torch.equal(model.decoder(latent), model.decoder(latent))
    model.train()
    assert not torch.allclose(model.decoder(latent), model.decoder(latent), atol=1e-3)


def test_quant_convs_that_do_nothing_change_nothing(make_model, image, assert_same):
    plain, model = make_model(), make_model(use_quant_conv=True)
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    names = ["quant_conv.weight", "quant_conv.bias", "post_quant_conv.weight", "post_quant_conv.bias"]
    assert sorted(missing) == sorted(names)
    with torch.no_grad():
        for convolution, channels in ((model.quant_conv, 8), (model.post_quant_conv, 4)):
            convolution.weight.copy_(torch.eye(channels)[:, :, None, None])
            convolution.bias.zero_()
    assert_same(model(image).sample, plain(image).sample)
    with torch.no_grad():
        model.quant_conv.weight.mul_(2)
    assert_same(model(image).latent, 2 * plain(image).latent)


@pytest.mark.parametrize("arguments", [case for case in DECODERS if case.get("decoder_normalization") == "smc"])
@pytest.mark.parametrize("output_type", ["image", "wavelet"])
def test_fold_smc_is_plain_and_the_same(make_model, image, tmp_path, arguments, output_type):
    model = make_model(output_type=output_type, scaling_factor=0.5, **arguments)
    folded = model.fold_smc()
    assert folded.config.decoder_normalization == "none"
    assert folded.config.scaling_factor == 0.5
    assert {type(m).__name__ for m in folded.modules() if hasattr(m, "weight")} <= {
        "Conv2d",
        "Linear",
        "GroupNorm",
        "GroupNormSiLU",
        "Shortcut",
    }
    assert not folded.training
    latent = model.encode(image).latent_dist.mode()
    expected = model.decode(latent).sample
    torch.testing.assert_close(folded.decode(latent).sample, expected, rtol=1e-5, atol=1e-5)
    folded.save_pretrained(tmp_path)
    loaded = LiteVAE.from_pretrained(tmp_path)
    assert torch.equal(loaded.decode(latent).sample, folded.decode(latent).sample)
    assert model.config.decoder_normalization == "smc"
    with torch.no_grad():
        folded.decoder.conv_in.weight.zero_()
    assert torch.equal(model.decode(latent).sample, expected)
    assert copy.deepcopy(model).to(torch.bfloat16).fold_smc().dtype == torch.bfloat16


def test_fold_smc_refuses_a_decoder_without_it(make_model):
    with pytest.raises(ValueError, match=r"_normalization must be 'smc' for fold_smc\(\).*got 'group_norm'"):
        make_model().fold_smc()
