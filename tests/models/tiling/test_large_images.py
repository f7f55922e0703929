"""Do tiles do what `enable_tiling` says, with all else that a LiteVAE can do, and never silently something else?"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torch import nn

from litevae import LiteVAE
from litevae.cost import peak_tensor_bytes
from litevae.models.tiling import large_images

from ..precision import LAYERS, exact, relative_error, rounded_once
from ..test_autoencoder_kl import LoraConv2d, replace_convolutions
from ..variants import VARIANTS

BOUNDED = {"decoder_normalization": "smc", "mid_block_add_attention": False}
LATENT = torch.randn(2, 4, 13, 18, generator=torch.Generator().manual_seed(0))


def shapes_of_calls(module: nn.Module) -> list[tuple[int, ...]]:
    """Fills with the shape of every input of `module` from now on."""
    shapes: list[tuple[int, ...]] = []
    module.register_forward_pre_hook(lambda _, arguments: shapes.append(tuple(arguments[0].shape)))
    return shapes


@torch.no_grad()
def test_tiling_is_enabled_and_disabled(make_model, assert_same):
    model = make_model(**BOUNDED)
    assert not model.use_tiling
    whole = model.decode(LATENT).sample
    model.enable_tiling(8)
    assert model.use_tiling
    assert (model.tile_latent_min_size, model.tile_sample_min_size) == (8, 64)
    shapes = shapes_of_calls(model.decoder.mid_block.resnets[0].norm1)
    assert_same(model.decode(LATENT).sample, whole)
    assert len(shapes) == 2 * 3
    model.disable_tiling()
    assert not model.use_tiling
    model.decode(LATENT)
    assert shapes[6:] == [(2, 16, 13, 18)]
    assert torch.equal(model.tiled_decode(LATENT).sample, model.tiled_decode(LATENT, return_dict=False)[0])
    assert len(shapes) == 7 + 2 * 6
    assert not model.use_tiling
    model.use_tiling = True
    model.tile_sample_min_size = 128
    model.decode(LATENT)
    assert len(shapes) == 19 + 2
    model.tile_latent_min_size = 18
    model.decode(LATENT)  # which fits
    assert shapes[21:] == [(2, 16, 13, 18)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "GroupNorm takes the mean and variance of the whole image and attention sees"),
        ({"mid_block_add_attention": False}, "GroupNorm takes the mean"),
        ({"decoder_normalization": "smc"}, "but attention sees the whole latent"),
        ({**BOUNDED, "decoder_outer_norm": True}, "GroupNorm takes the mean"),
    ],
)
def test_a_decoder_that_sees_the_whole_image_is_refused(make_model, arguments, reason):
    model = make_model(**arguments)
    enable = (model.enable_tiling, lambda: setattr(model, "use_tiling", True), lambda: model.tiled_decode(LATENT))
    for call in (*enable, lambda: model.decode_rows(LATENT)):
        with pytest.raises(ValueError, match=rf"{reason}.*enable_tiling\(statistics='exact'\).*\(blend=True\)"):
            call()
    assert not model.use_tiling


@pytest.mark.parametrize(
    ("variant", "reason"),
    [("dwt", ""), ("smc-encoder", ""), ("no-norm-encoder", ""), ("shared", "GroupNorm"), ("nafnet", "NAFNet's channel"),
     ("vit", "ViT's attention")],
)  # fmt: skip
def test_encoders_that_see_the_whole_image(make_model, variant, reason):
    model = make_model(**{**VARIANTS[variant], **BOUNDED})
    image = torch.rand(1, 3, 48, 32) * 2 - 1
    if not reason:
        assert model.tiled_encode(image).latent_dist.mode().shape[2:] == (6, 4)
        assert sum(strip.mean.shape[2] for strip in model.encode_rows(image, 1)) == 6
        return
    for call in (model.tiled_encode, model.encode_rows):
        with pytest.raises(ValueError, match=f"the encoder must see a bounded part.*{reason}.*whole"):
            call(image)
    whole = model.encode(image).latent_dist.mode()
    model.enable_tiling(2)
    assert torch.equal(model.encode(image).latent_dist.mode(), whole)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"tile_size": 0}, ValueError, "tile_size must be at least 1, got 0"),
        ({"tile_size": 64.0}, TypeError, "tile_size must be an int"),
        ({"memory_budget": 0}, ValueError, "memory_budget must be at least 1"),
        ({"memory_budget": 1, "tile_size": 1}, ValueError, "memory_budget must be left out where tile_size is given"),
        ({"blend": 1}, TypeError, "blend must be True or False"),
        ({"statistics": "gathered"}, ValueError, "statistics must be one of 'exact'"),
        ({"statistics": "exact", "blend": True}, ValueError, "blend must be False where statistics are exact"),
    ],
)
def test_bad_tiles_are_refused(make_model, arguments, kind, message):
    model = make_model(**BOUNDED)
    with pytest.raises(kind, match=message):
        model.enable_tiling(**arguments)
    assert not model.use_tiling
    with pytest.raises(ValueError, match="tile_sample_min_size must be a multiple of 8"):
        model.tile_sample_min_size = 100
    with pytest.raises(ValueError, match="tile_overlap_factor must be at least 0 and below 1"):
        model.tile_overlap_factor = 1.0


@torch.no_grad()
def test_inputs_are_checked_and_an_empty_batch_is_empty(make_model):
    model = make_model(encoder_normalization="smc", **BOUNDED)
    model.enable_tiling(2)
    with pytest.raises(TypeError, match=r"latent must be a torch\.Tensor"):
        model.decode([0.0])
    with pytest.raises(ValueError, match="multiples of 8"):
        model.encode(torch.zeros(1, 3, 65, 64))
    assert model.decode(LATENT[:0]).sample.shape == (0, 3, 104, 144)
    assert model.encode(torch.zeros(0, 3, 64, 64)).latent_dist.mode().shape == (0, 4, 8, 8)
    assert [strip.shape for strip in model.decode_rows(LATENT[:0], 1)] == [(0, 3, 104, 144)]


@torch.no_grad()
@pytest.mark.parametrize("output_type", [pytest.param("image", marks=pytest.mark.slow), "wavelet"])
def test_tiles_slices_and_the_sub_bands(make_model, assert_same, output_type):
    model = make_model(encoder_normalization="smc", output_type=output_type, **BOUNDED)
    image = torch.rand(3, 3, 40, 56) * 2 - 1
    whole = model(image)
    model.enable_tiling(3)
    model.enable_slicing(2)
    tiled = model(image)
    assert_same(tiled.sample, whole.sample)
    assert_same(tiled.latent, whole.latent)
    assert (tiled.wavelet is None) == (output_type == "image")
    if tiled.wavelet is not None:
        assert_same(tiled.wavelet, whole.wavelet)
    pixels = (image * 127.5 + 127.5).round().to(torch.uint8)
    model.disable_tiling()
    assert_same(model.tiled_encode(pixels).latent_dist.mode(), model.encode(pixels).latent_dist.mode())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_a_memory_budget_is_kept(make_model, dtype):
    model = make_model(**BOUNDED).to(dtype)
    latent = torch.zeros(2, 4, 40, 64, dtype=dtype)
    whole = peak_tensor_bytes(lambda z: model.decode(z), latent)
    budget = whole // 5
    model.enable_tiling(memory_budget=budget)
    image = 2 * 3 * 320 * 512 * dtype.itemsize
    assert peak_tensor_bytes(lambda z: model.decode(z), latent) <= budget + latent.nbytes + 2 * image
    model.enable_tiling(memory_budget=2**40)
    shapes = shapes_of_calls(model.decoder.mid_block.resnets[0].norm1)
    model.decode(latent)
    assert shapes == [(2, 16, 40, 64)]
    model.disable_tiling()
    model.enable_tiling(memory_budget=1)
    model.decode(latent[:, :, :9])  # one sample after the other, in bands of 8 latents at the most, and their halo
    assert {shape[0] for shape in shapes[1:]} == {1}
    assert max(shape[3] for shape in shapes[1:]) <= 8 + 2 * 18
    assert max(shape[2] for shape in shapes[1:]) <= 8 + 2


@torch.no_grad()
def test_an_optimized_copy_is_tiled_too(make_model, assert_same):
    model = make_model(**BOUNDED)
    whole = model.decode(LATENT).sample
    model.enable_tiling(8)
    fast = model.optimize_for_inference()
    assert fast.config.decoder_normalization == "none"
    assert fast.use_tiling
    assert fast.tile_latent_min_size == 8
    assert_same(fast.decode(LATENT).sample, whole)
    fast.disable_tiling()
    assert model.use_tiling
    assert copy.deepcopy(model).use_tiling


@pytest.mark.filterwarnings("ignore:this CPU has no instructions for bfloat16")
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
def test_half_precision(make_model, dtype):
    model = make_model(**BOUNDED)
    expected = exact(model).decode(LATENT.to(dtype).double()).sample
    once = relative_error(rounded_once(model, dtype).decode(LATENT.to(dtype).double()).sample, expected)
    half = model.to(dtype)
    half.enable_tiling(8)
    tiled, strips = half.decode(LATENT).sample, torch.cat(list(half.decode_rows(LATENT, 2)), dim=2)
    for image in (tiled, strips):
        assert image.dtype == dtype
        assert relative_error(image, expected) < LAYERS * once


@torch.no_grad()
def test_compiled_parts_are_called_by_their_layers(make_model, assert_same):
    model = make_model(**BOUNDED)
    whole = model.decode(LATENT).sample
    model.decoder.compile(backend="eager")
    model.enable_tiling(8)
    assert_same(model.decode(LATENT).sample, whole)
    model.decoder = torch.compile(make_model(**BOUNDED).decoder, backend="eager")
    assert_same(model.decode(LATENT).sample, whole)
    assert_same(torch.cat(list(model.decode_rows(LATENT, 4)), dim=2), whole)


@torch.no_grad()
def test_a_hook_that_would_not_be_called_is_named(make_model):
    model = make_model(**BOUNDED)
    model.enable_tiling(8)
    handle = model.decoder.up_blocks[1].resnets[0].register_forward_hook(lambda *_: None)
    for call in (model.decode, model.decode_rows):
        with pytest.raises(ValueError, match=r"up_blocks\.1\.resnets\.0 must be called layer by layer.* a hook"):
            call(LATENT)
    handle.remove()
    model.decode(LATENT)
    model.decoder.conv_norm_out = nn.Sequential(nn.InstanceNorm2d(8), nn.SiLU())
    with pytest.raises(ValueError, match=r"conv_norm_out\.0 must be called layer by layer.* a InstanceNorm2d"):
        model.decode(LATENT)
    model.decoder.conv_norm_out = nn.SiLU()
    layer = model.decoder.conv_in
    model.decoder.conv_in = nn.Conv2d(4, layer.out_channels, 3, padding=2, dilation=2)
    with pytest.raises(ValueError, match=r"Conv2d must be called layer by layer.* no plain convolution"):
        model.decode(LATENT)
    model.decoder.conv_in = layer
    layer._conv_forward = lambda *_: None  # as patches for seamless textures do
    with pytest.raises(ValueError, match="Conv2d must be called layer by layer"):
        model.decode(LATENT)


@torch.no_grad()
def test_a_hook_on_a_norm_whose_statistics_are_gathered_is_named(make_model):
    model = make_model()
    model.enable_tiling(8, statistics="exact")
    model.decoder.conv_norm_out.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"conv_norm_out must be called layer by layer.* a hook"):
        model.decode(LATENT)


def test_use_tiling_enables_what_was_enabled_last(make_model):
    model = make_model()
    for arguments in ({"blend": True}, {"statistics": "exact"}, {"memory_budget": 10**9, "blend": True}):
        model.enable_tiling(**arguments)
        asked = model.tiling
        model.use_tiling = False
        assert model.tiling is None
        model.use_tiling = True
        assert model.tiling == asked


@torch.no_grad()
def test_wrapped_layers_are_called(make_model):
    """LoRA's, beside every convolution, of any stride."""
    bounded = {"encoder_normalization": "none", "decoder_normalization": "none", "mid_block_add_attention": False}
    model = make_model(**bounded)
    assert replace_convolutions(model, LoraConv2d, nn.Conv2d) > 50
    model = model.double()
    image = torch.rand(1, 3, 88, 64, dtype=torch.float64) * 2 - 1
    whole = model(image)
    strips = torch.cat([strip.mean for strip in model.encode_rows(image, 2)], dim=2)
    model.enable_tiling(3)
    tiled = model(image)
    for result, expected in ((tiled.latent, whole.latent), (strips, whole.latent), (tiled.sample, whole.sample)):
        assert (result - expected).abs().max() <= 1e-13 * expected.abs().max()


@torch.no_grad()
def test_blended_tiles_are_diffusers(assert_same):
    """On the same weights, at any size."""
    widths = (16, 16, 32, 32)
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    theirs: Any = AutoencoderKL(block_out_channels=widths, norm_num_groups=16, layers_per_block=1, **blocks).eval()
    theirs.post_quant_conv = None
    theirs.register_to_config(use_post_quant_conv=False)
    ours = LiteVAE(block_out_channels=widths, layers_per_block=1).eval()
    ours.decoder.load_state_dict(theirs.decoder.state_dict())
    norms = [module for module in ours.decoder.modules() if isinstance(module, nn.GroupNorm)]
    for norm in norms:
        norm.num_groups = 16
    theirs.tile_latent_min_size, theirs.tile_sample_min_size = 8, 64
    ours.enable_tiling(8, blend=True)
    for latent in (LATENT, LATENT[..., :8, :], LATENT[:1, :, :9, :7]):
        expected = theirs.tiled_decode(latent).sample
        assert_same(ours.decode(latent).sample, expected, 1e-4)
        assert not torch.allclose(ours.decoder(latent), expected, atol=1e-3)
    assert_same(ours.decode(LATENT[..., :8, :8]).sample, theirs.decoder(LATENT[..., :8, :8]), 1e-4)
    ours.tile_overlap_factor = theirs.tile_overlap_factor = 0.5
    assert_same(ours.decode(LATENT).sample, theirs.tiled_decode(LATENT).sample, 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("output_type", ["image", "wavelet"])
def test_blended_encoders(make_model, output_type):
    model = make_model(output_type=output_type)
    image = torch.rand(2, 3, 104, 72) * 2 - 1
    model.enable_tiling(8, blend=True)
    blended = model(image)
    assert blended.latent.shape == (2, 4, 13, 9)
    assert blended.sample.shape == image.shape
    first = model.encoder(image[..., :64, :64])[:, :4, :6, :6]  # of the first tile, where no other reaches
    torch.testing.assert_close(blended.latent[..., :6, :6], first, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        pytest.param({"mid_block_add_attention": False}, marks=pytest.mark.slow),
        pytest.param({"output_type": "wavelet"}, marks=pytest.mark.slow),
        {"decoder_normalization": "smc"},
        pytest.param(VARIANTS["f4"], marks=pytest.mark.slow),
    ],
)
def test_exact_statistics(make_model, arguments):
    model = make_model(**arguments).double()
    latent = LATENT.double()
    whole = model.decode(latent).sample
    model.enable_tiling(5, statistics="exact")
    for image in (model.decode(latent).sample, model.tiled_decode(latent).sample):
        assert (image - whole).abs().max() <= 1e-11 * whole.abs().max()


@torch.no_grad()
def test_exact_statistics_take_less_memory(make_model):
    model = make_model(mid_block_add_attention=False)
    latent = torch.randn(1, 4, 32, 32)
    whole = peak_tensor_bytes(lambda z: model.decode(z), latent)
    model.enable_tiling(8, statistics="exact")
    assert peak_tensor_bytes(lambda z: model.decode(z), latent) < 0.7 * whole


def test_gradients_through_tiles(make_model, assert_same):
    model = make_model(**BOUNDED).double()
    latent = LATENT.double().requires_grad_()
    model.decode(latent).sample.square().sum().backward()
    expected = [latent.grad.clone(), model.decoder.conv_in.weight.grad.clone()]
    latent.grad = model.decoder.conv_in.weight.grad = None
    model.enable_tiling(8)
    model.decode(latent).sample.square().sum().backward()
    for gradient, other in zip((latent.grad, model.decoder.conv_in.weight.grad), expected, strict=True):
        assert_same(gradient, other, 1e-11)


def test_a_pipeline_s_vae_is_tiled(make_model, assert_same):
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8, "patch_size": 2}
    transformer = DiTTransformer2DModel(in_channels=4, out_channels=4, num_embeds_ada_norm=1000, **sizes).eval()
    pipe = DiTPipeline(transformer, make_model(**BOUNDED), DDIMScheduler(), id2label={0: "cat"})
    pipe.set_progress_bar_config(disable=True)

    def generate() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        images = pipe([0, 1], generator=generator, num_inference_steps=1, output_type="np").images
        return torch.from_numpy(images)

    whole = generate()
    pipe.vae.enable_tiling()
    pipe.vae.tile_latent_min_size = 5
    shapes = shapes_of_calls(pipe.vae.decoder.mid_block.resnets[0].norm1)
    assert_same(generate(), whole)
    assert len(shapes) >= 4
    with pytest.raises(ValueError, match="GroupNorm"):
        DiTPipeline(transformer, make_model(), DDIMScheduler()).vae.enable_tiling()


def test_the_default_tile(make_model):
    model = make_model(**BOUNDED)
    model.enable_tiling()
    assert model.tiling == large_images.Tiling(side=64)
    model.enable_tiling(memory_budget=10**9)
    model.enable_tiling()
    assert model.tile_latent_min_size == 64
