"""Does LiteVAE behave like AutoencoderKL, and DiagonalGaussian like its posterior, wherever they are touched?

Every public name of diffusers' is ours unchanged, or in a table: with the same result, or refused with a way out.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn

from litevae import DiagonalGaussian, LiteVAE, StableDiffusionVAE

IMAGE = torch.linspace(-1, 1, 2 * 3 * 32 * 24).reshape(2, 3, 32, 24)
LATENT = torch.linspace(-1, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)


LITEVAE_CONFIG = ["in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block"]
LITEVAE_CONFIG += ["scaling_factor", "shift_factor", "force_upcast", "use_quant_conv", "mid_block_add_attention"]


def autoencoder_kl() -> Any:
    model: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.5,
        force_upcast=False,
    )
    return model.eval()


@pytest.fixture
def both(make_model) -> tuple[Any, Any]:
    return make_model(scaling_factor=0.5, use_quant_conv=True), autoencoder_kl()


def shape(x: Any) -> tuple[type, tuple[int, ...], torch.dtype]:
    return type(x), tuple(x.shape), x.dtype


def after(method: str, attribute: str) -> Callable[[Any], Any]:
    """What `attribute` is after `method()`."""

    def call(vae: Any) -> Any:
        getattr(vae, method)()
        return getattr(vae, attribute)

    return call


def set_and_decode(vae: Any) -> Any:
    whole = vae.decode(LATENT).sample
    vae.use_slicing = True
    torch.testing.assert_close(vae.decode(LATENT).sample, whole)
    return vae.use_slicing


def written_and_read(vae: Any, folder: Path, **options: Any) -> Any:
    vae.save_pretrained(folder, **options)
    return torch.equal(type(vae).from_pretrained(folder, **options).decode(LATENT).sample, vae.decode(LATENT).sample)


def attention_set(vae: Any) -> bool:
    before = vae.decode(LATENT).sample
    vae.set_attn_processor(AttnProcessor2_0())
    vae.set_default_attn_processor()
    torch.testing.assert_close(vae.decode(LATENT).sample, before, rtol=1e-4, atol=1e-5)
    return True


SAME: dict[str, Callable[[Any], Any]] = {
    "config": lambda vae: {name: vae.config[name] for name in LITEVAE_CONFIG},
    "encode": lambda vae: (
        type(vae.encode(IMAGE)),
        isinstance(vae.encode(IMAGE).latent_dist, DiagonalGaussianDistribution),
        shape(vae.encode(IMAGE, return_dict=False)[0].sample()),
    ),
    "decode": lambda vae: (
        type(vae.decode(LATENT)),
        shape(vae.decode(LATENT, return_dict=False, generator=torch.Generator())[0]),
    ),
    "forward": lambda vae: (
        shape(vae(IMAGE).sample),
        shape(vae(IMAGE, sample_posterior=True, return_dict=False, generator=torch.Generator())[0]),
    ),
    "encoder": lambda vae: shape(vae.encoder(IMAGE)),
    "decoder": lambda vae: shape(vae.decoder(LATENT)),
    "quant_conv": lambda vae: shape(vae.quant_conv.weight),
    "post_quant_conv": lambda vae: next(vae.post_quant_conv.parameters()).dtype,
    "use_slicing": set_and_decode,
    "enable_slicing": after("enable_slicing", "use_slicing"),
    "disable_slicing": after("disable_slicing", "use_slicing"),
    "use_tiling": lambda vae: vae.use_tiling,
    "disable_tiling": after("disable_tiling", "use_tiling"),
    "tile_sample_min_size": lambda vae: isinstance(vae.tile_sample_min_size, int),
    "tile_latent_min_size": lambda vae: isinstance(vae.tile_latent_min_size, int),
    "tile_overlap_factor": lambda vae: vae.tile_overlap_factor,
    "blend_h": lambda vae: vae.blend_h(LATENT, LATENT.flip(0), 2).tolist(),
    "blend_v": lambda vae: vae.blend_v(LATENT, LATENT.flip(0), 2).tolist(),
    "set_attn_processor": attention_set,
    "set_default_attn_processor": attention_set,
    "enable_gradient_checkpointing": after("enable_gradient_checkpointing", "is_gradient_checkpointing"),
    "from_config": lambda vae: dict(type(vae).from_config(vae.config).config) == dict(vae.config),
}
FOLDERS = ("save_pretrained", "from_pretrained", "push_to_hub")  # the last: test_publishing.py

TILING = (ValueError, r"the decoder must see a bounded part .*GroupNorm.*enable_tiling\(blend=True\)")
REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "enable_tiling": (lambda vae: vae.enable_tiling(), *TILING),
    "tiled_encode": (
        lambda vae: vae.tiled_encode(IMAGE),
        ValueError,
        "the encoder must see a bounded part .*GroupNorm",
    ),
    "tiled_decode": (lambda vae: vae.tiled_decode(LATENT), *TILING),
    "use_tiling": (lambda vae: setattr(vae, "use_tiling", True), *TILING),
    "set_attn_processor": (
        lambda vae: vae.set_attn_processor(AttnProcessor()),
        TypeError,
        r"processor must be an AttnProcessor2_0.*sdpa_kernel\(\)",
    ),
    "fuse_qkv_projections": (lambda vae: vae.fuse_qkv_projections(), NotImplementedError, "leave the call out"),
    "from_single_file": (lambda vae: type(vae).from_single_file("x"), NotImplementedError, "LiteVAE.from_pretrained"),
}
OF_ITS_OWN_LAYERS = {"down_block_types", "up_block_types", "act_fn", "norm_num_groups", "use_post_quant_conv"}
"""What AutoencoderKL's config says of layers that LiteVAE has not, or has one choice of."""
OF_ITS_TILING = {"sample_size"}
OF_ITS_SCALE = {"latents_mean", "latents_std"}
"""Pipelines ask with hasattr; both are None in every AutoencoderKL of Stable Diffusion's."""


def public(x: Any) -> set[str]:
    return {name for name in dir(x) if not name.startswith("_")}


def test_every_public_name_is_ours_or_in_a_table(both):
    ours, theirs = both
    differing = {
        name
        for name in public(theirs) - public(nn.Module())
        if inspect.getattr_static(type(ours), name, None) is not inspect.getattr_static(type(theirs), name, 0)
    }
    in_tables = {*SAME, *FOLDERS, *REFUSED, "unfuse_qkv_projections"}  # which undoes what is refused
    assert differing - in_tables == set()
    assert in_tables <= public(theirs)
    assert set(theirs.config) - set(ours.config) - {"_use_default_values"} == (
        OF_ITS_OWN_LAYERS | OF_ITS_TILING | OF_ITS_SCALE
    )


@pytest.mark.parametrize("name", SAME)
def test_the_same_result(both, name):
    ours, theirs = both
    assert SAME[name](ours) == SAME[name](theirs)


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}])
def test_folders(both, tmp_path, options):
    for model in both:
        assert written_and_read(model, tmp_path / type(model).__name__, **options)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_with_the_way_out(both, name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(both[0])


def test_what_diffusers_calls_on_a_vae(both):
    """Every `vae.name` and `vae.config.name` in its sources that an AutoencoderKL has."""
    ours, theirs = both
    sources = [file.read_text() for file in Path(diffusers.__file__).parent.rglob("*.py")]
    used = {name for text in sources for name in re.findall(r"\bvae\.([a-z]\w*)", text)}
    asked = {name for text in sources for name in re.findall(r"\bvae\.config\.([a-z]\w*)", text)}
    assert {"encode", "decode", "enable_tiling", "post_quant_conv", "dtype"} <= used
    assert {"scaling_factor", "shift_factor", "latent_channels", "force_upcast"} <= asked
    attributes = {name for name in used - {*theirs.config} if hasattr(theirs, name)}
    assert [name for name in attributes if not hasattr(ours, name) and name not in REFUSED] == []
    assert {name for name in asked if name in theirs.config and name not in ours.config} <= OF_ITS_SCALE


def test_every_public_name_of_the_posterior():
    moments = torch.randn(2, 8, 3, 2, generator=torch.Generator().manual_seed(0))
    ours, theirs = DiagonalGaussian(moments), DiagonalGaussianDistribution(moments)
    assert public(theirs) <= public(ours)
    other = DiagonalGaussianDistribution(moments.flip(0))
    sample = other.sample(torch.Generator().manual_seed(1))
    for call in (
        lambda q: q.kl(other),
        lambda q: q.nll(sample),
        lambda q: q.nll(sample, dims=[1]),
        lambda q: q.parameters,
    ):
        torch.testing.assert_close(call(ours), call(theirs), rtol=1e-5, atol=1e-5)
    ours, theirs = (kind(moments, deterministic=True) for kind in (DiagonalGaussian, DiagonalGaussianDistribution))
    assert ours.deterministic is theirs.deterministic is True
    for call in (lambda q: q.sample(), lambda q: q.std, lambda q: q.var):
        torch.testing.assert_close(call(ours), call(theirs), rtol=0, atol=0)
    assert not torch.cat([ours.kl(), ours.nll(sample)]).any()


def test_a_posterior_against_another_is_torch_distributions():
    moments = torch.randn(2, 2, 8, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    ours, other = map(DiagonalGaussian, moments)
    p, q = (torch.distributions.Normal(x.mean, x.std) for x in (ours, other))
    expected = torch.distributions.kl_divergence(p, q).sum(dim=(1, 2, 3))
    torch.testing.assert_close(ours.kl(other), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.nll(other.mean), -p.log_prob(other.mean).sum(dim=(1, 2, 3)), rtol=1e-12, atol=0)


def test_diffusers_ema_model_saves_and_loads(make_model, tmp_path):
    model = make_model()
    average = EMAModel(model.parameters(), decay=0.9, model_cls=LiteVAE, model_config=model.config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    average.step(model.parameters())
    average.save_pretrained(tmp_path)
    loaded = EMAModel.from_pretrained(tmp_path, LiteVAE)
    assert (loaded.decay, loaded.optimization_step) == (0.9, 1)
    pairs = zip(loaded.shadow_params, average.shadow_params, strict=True)
    assert all(torch.equal(read, written) for read, written in pairs)
    averaged = LiteVAE.from_pretrained(tmp_path)
    assert all(torch.equal(x, y) for x, y in zip(averaged.parameters(), average.shadow_params, strict=True))


def test_weights_can_be_saved_by_safetensors(make_model, tmp_path):
    model = make_model(decoder_normalization="smc", use_quant_conv=True)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = make_model(decoder_normalization="smc", use_quant_conv=True)
    with torch.no_grad():
        other.decoder.conv_in.weight.zero_()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(other(IMAGE).sample, model(IMAGE).sample)


def test_the_state_dict_is_contiguous_and_loads(make_model):
    model = make_model()
    state = nn.Sequential(model).state_dict()
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert model.state_dict(keep_vars=True)["decoder.conv_in.weight"] is model.decoder.conv_in.weight
    expected = model(IMAGE).sample
    other = make_model().train()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    other(IMAGE).sample.sum().backward()
    optimizer.step()
    assert torch.equal(model(IMAGE).sample, expected)


def test_accelerate_offloads_it(make_model, assert_same):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    model = make_model(use_quant_conv=True)
    expected = model(IMAGE).sample
    accelerate.cpu_offload(model, torch.device("cpu"))
    assert_same(model(IMAGE).sample, expected, tolerance=1e-4)


class LoraConv2d(nn.Module):
    """As PEFT wraps an nn.Conv2d: the layer, and beside it a convolution to `rank` channels and one from there."""

    def __init__(self, layer: nn.Conv2d, rank: int = 2) -> None:
        super().__init__()
        self.base_layer = layer
        self.down = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
        self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.up(self.down(x))

    def merged(self) -> nn.Conv2d:
        """The plain layer that does the same."""
        layer = copy.deepcopy(self.base_layer)
        layer.weight.data += torch.einsum("or,rikl->oikl", self.up.weight[:, :, 0, 0], self.down.weight)
        return layer


def replace_convolutions(model: nn.Module, replace: Callable[[Any], Any], kind: type[nn.Module]) -> int:
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]
    for parent, name, child in found:
        setattr(parent, name, replace(child))
    return len(found)


@pytest.mark.parametrize("gradients", [True, False])
def test_every_convolution_can_be_wrapped_by_lora(make_model, assert_same, gradients):
    model = make_model()
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert replace_convolutions(model, LoraConv2d, nn.Conv2d) == convolutions
    with torch.set_grad_enabled(gradients):
        wrapped = model(IMAGE).sample
    if gradients:
        wrapped.sum().backward()
        assert all(p.grad is not None for name, p in model.encoder.named_parameters() if ".up." in name)
    replace_convolutions(model, LoraConv2d.merged, LoraConv2d)
    with torch.set_grad_enabled(gradients):
        assert_same(wrapped, model(IMAGE).sample, tolerance=1e-4)


def test_peft_adapters(make_model, assert_same):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = make_model()
    before = model(IMAGE).sample
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["conv1", "conv2", "conv_shortcut", "to_q"]))
    assert model.active_adapters() == ["default"]
    assert_same(model(IMAGE).sample, before, tolerance=1e-4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    adapted = model(IMAGE).sample
    assert not torch.allclose(adapted, before)
    model.fuse_lora()
    assert_same(model(IMAGE).sample, adapted, tolerance=1e-4)


@pytest.mark.parametrize("kind", ["LiteVAE", "StableDiffusionVAE"])
def test_a_model_with_compiled_parts_is_saved_as_it_is(make_model, tmp_path, kind):
    model: Any = make_model() if kind == "LiteVAE" else StableDiffusionVAE(autoencoder_kl())
    expected = model(IMAGE).sample
    owner = model if kind == "LiteVAE" else model.vae
    owner.decoder = torch.compile(owner.decoder, backend="eager")
    owner.encoder.compile(backend="eager")
    model.save_pretrained(tmp_path)
    assert any("_orig_mod" in name for name in model.state_dict())
    assert torch.equal(type(model).from_pretrained(tmp_path)(IMAGE).sample, expected)


def test_a_folded_copy_of_a_model_with_compiled_parts(make_model, assert_same):
    model = make_model(decoder_normalization="smc")
    expected = model.decode(LATENT).sample
    model.decoder = torch.compile(model.decoder, backend="eager")
    assert_same(model.optimize_for_inference().decode(LATENT).sample, expected)


@pytest.mark.parametrize("kind", ["LiteVAE", "StableDiffusionVAE"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_images_and_latents_of_another_dtype_are_cast(make_model, kind, dtype):
    model: Any = make_model(use_quant_conv=True) if kind == "LiteVAE" else StableDiffusionVAE(autoencoder_kl())
    model = model.to(dtype)
    latent = model.encode(IMAGE).latent_dist.mode()
    assert torch.equal(latent, model.encode(IMAGE.to(dtype)).latent_dist.mode())
    image = model.decode(LATENT).sample
    assert image.dtype == latent.dtype == dtype
    assert torch.equal(image, model.decode(LATENT.to(dtype)).sample)


def test_an_optimized_copy_takes_images_in_float32(make_model):
    fast = make_model().optimize_for_inference(dtype=torch.bfloat16)
    assert fast.decode(fast.encode(IMAGE).latent_dist.sample().float()).sample.dtype == torch.bfloat16


@pytest.mark.parametrize("part", [pytest.param("encode", marks=pytest.mark.slow), "decode"])
def test_compiled_slices_are_traced_once_for_every_batch(make_model, assert_same, part):
    torch.compiler.reset()
    model = make_model(extraction_multipliers=(1,), aggregation_multipliers=(1,))
    model.enable_slicing()
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    method, inputs = (model.encode, IMAGE) if part == "encode" else (model.decode, LATENT)
    compiled = torch.compile(method, backend=count)
    with torch.no_grad():
        for batch in (2, 3, 5, 7):  # a batch of another size may trace what comes after the slices, which is short
            x = inputs[:1].repeat(batch, 1, 1, 1)
            for ours, expected in zip(compiled(x).values(), method(x).values(), strict=True):
                if part == "encode":
                    ours, expected = ours.mean, expected.mean
                assert_same(ours, expected)
    torch.compiler.reset()
    assert sum(len(graph.graph.nodes) > 100 for graph in graphs) == 1


def test_slices_are_exported(make_model, assert_same):
    model = make_model()
    model.enable_slicing()

    class Decode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, latent: torch.Tensor) -> torch.Tensor:
            return self.model.decode(latent).sample

    exported = torch.export.export(Decode(), (LATENT,)).module()
    assert_same(exported(LATENT.flip(0)), model.decode(LATENT.flip(0)).sample)


def test_autocast_takes_any_floating_point_image(make_model):
    model = make_model()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            assert model.encode(IMAGE.to(dtype)).latent_dist.mode().isfinite().all()


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_layerwise_casting(make_model, storage, compute):
    model = make_model(use_quant_conv=True)
    model.enable_layerwise_casting(storage_dtype=storage, compute_dtype=compute)
    with torch.no_grad():
        latent = model.encode(IMAGE).latent_dist.mode()
        pixels = model.encode((IMAGE * 127.5 + 127.5).round().to(torch.uint8)).latent_dist.mode()
        assert latent.dtype == pixels.dtype == model.decode(LATENT).sample.dtype == compute
        assert (latent - pixels).norm() < 0.1 * latent.norm()
        model.enable_slicing(memory_budget=10**6)
        assert torch.equal(model.encode(IMAGE).latent_dist.mode(), latent) or compute == torch.bfloat16


@torch.no_grad()
def test_a_patched_convolution_is_called(make_model):
    """Patches for seamless textures replace `_conv_forward` of every convolution."""
    model = make_model()
    calls = []

    def patched(layer: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        calls.append(layer)
        return type(layer)._conv_forward(layer, x, weight, bias)

    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for layer in convolutions:
        layer._conv_forward = patched.__get__(layer)
    model(IMAGE)
    assert set(calls) == set(convolutions)
