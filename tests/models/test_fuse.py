"""Is a fused autoencoder of diffusers the same function, in every layout, and is what fuse() does not know refused?"""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file
from torch import Tensor, nn

from litevae import LiteVAE, fuse, unfuse
from litevae.models import fuse as room
from litevae_kernels import backends
from litevae_kernels.conv2d_add import onednn
from litevae_kernels.precision import tf32

NARROW: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 16,
}
ATTENTION = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
}
NO_QUANT_CONV = {"use_quant_conv": False, "use_post_quant_conv": False}
ASYMMETRIC = {
    **{name: NARROW[name] for name in ("down_block_types", "up_block_types", "sample_size")},
    "down_block_out_channels": NARROW["block_out_channels"],
    "up_block_out_channels": (32, 32, 32),
    "norm_num_groups": 8,
}
# By name: class, the layout's own arguments beside the widths, pairs of GroupNorm and SiLU.
LAYOUTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "SD": ("AutoencoderKL", NARROW, 28),
    "SDXL": ("AutoencoderKL", {**NARROW, "scaling_factor": 0.13025, "force_upcast": True}, 28),
    "SD3": ("AutoencoderKL", {**NARROW, **NO_QUANT_CONV, "latent_channels": 16, "shift_factor": 0.0609}, 28),
    "FLUX": ("AutoencoderKL", {**NARROW, **NO_QUANT_CONV, "latent_channels": 16, "shift_factor": 0.1159}, 28),
    "FLUX.2": ("AutoencoderKLFlux2", {**NARROW, "latent_channels": 32, "decoder_block_out_channels": (8, 16, 32)}, 28),
    "with attention": ("AutoencoderKL", {**NARROW, **ATTENTION}, 28),
    "VQModel": ("VQModel", {**NARROW, "latent_channels": 4}, 28),
    "asymmetric": ("AsymmetricAutoencoderKL", ASYMMETRIC, 27),  # all but its decoder's last
}


def make(layout: str = "SD", **arguments: Any) -> Any:
    """A model whose every parameter is random, biases and gains too."""
    name, own, _ = LAYOUTS[layout]
    torch.manual_seed(0)
    model = getattr(diffusers, name)(**{**own, **arguments}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def calls(monkeypatch) -> list[Tensor]:
    """Fills with the inputs of the fused operator, whatever this machine has compiled."""
    made: list[Tensor] = []
    operator = room.group_norm_silu
    monkeypatch.setattr(room, "group_norm_silu", lambda x, *rest: made.append(x) or operator(x, *rest))
    monkeypatch.setattr(room, "_has_kernel", lambda x: True)
    return made


def results(vae: Any, image: Tensor) -> list[Tensor]:
    """The moments or codes, and the image decoded from half of them, which is no random sample."""
    encoded = vae.encode(image)
    latent = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.parameters
    channels = vae.config.latent_channels
    options = {"force_not_quantize": True} if isinstance(vae, diffusers.VQModel) else {}
    return [latent, vae.decode(latent[:, :channels], **options).sample]


def error(actual: Tensor, exact: Tensor) -> float:
    return float((actual.double() - exact).detach().norm() / exact.detach().norm())


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def strides(module: nn.Module) -> list[tuple[int, ...]]:
    return [parameter.stride() for parameter in module.parameters()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_model_is_as_near_to_float64_as_before(layout, dtype, image, calls):
    """Twice as far at most, and a few roundings for the case that one way has luck; float32 within 1e-5."""
    vae = make(layout).to(dtype)
    with torch.no_grad():
        exact = results(copy.deepcopy(vae).double(), image.to(dtype).double())
        before = results(vae, image.to(dtype))
        assert calls == []
        assert fuse(vae) is vae
        after = results(vae, image.to(dtype))
    assert len(calls) == LAYOUTS[layout][2]
    for own, plain, correct in zip(after, before, exact, strict=True):
        assert own.dtype == dtype
        assert error(own, correct) <= 2 * error(plain, correct) + 8 * torch.finfo(dtype).eps
        if dtype == torch.float32:
            assert error(own, plain.double()) <= 1e-5


@torch.no_grad()
def test_under_autocast(image, calls):
    vae = make()
    exact = results(copy.deepcopy(vae).double(), image.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = results(vae, image)
        after = results(fuse(vae), image)
    assert len(calls) == 28
    for own, plain, correct in zip(after, before, exact, strict=True):
        assert own.dtype == plain.dtype
        assert error(own, correct) <= 2 * error(plain, correct) + 8 * torch.finfo(torch.bfloat16).eps


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("layout", ["SD", "FLUX.2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_on_a_gpu(layout, dtype, image, calls):
    vae, image = make(layout).to("cuda", dtype), image.to("cuda", dtype)
    exact = results(copy.deepcopy(vae).double(), image.double())
    with tf32(False):
        before = results(vae, image)
        after = results(fuse(vae), image)
    assert len(calls) == 28
    assert is_channels_last(vae.decoder.conv_in.weight) == (dtype != torch.float32)
    for own, plain, correct in zip(after, before, exact, strict=True):
        assert error(own, correct) <= 2 * error(plain, correct) + 8 * torch.finfo(dtype).eps


def test_in_float64_it_is_the_same_formula(image, calls):
    vae = make().double()
    with torch.no_grad():
        before = results(vae, image.double())
        after = results(fuse(vae), image.double())
    assert len(calls) == 28
    assert all(error(own, plain) < 1e-13 for own, plain in zip(after, before, strict=True))
    assert not is_channels_last(vae.decoder.conv_in.weight)


@pytest.mark.parametrize("channels_last", [None, True, False])
def test_weights_stay_and_everything_comes_back(channels_last, image):
    vae = make()
    vae.decoder.conv_out.to(memory_format=torch.channels_last)
    before, parameters, laid_out = copy.deepcopy(vae), dict(vae.named_parameters()), strides(vae)
    expected = results(vae, image)
    fuse(vae, channels_last=channels_last)
    assert all(parameters[name] is parameter for name, parameter in vae.named_parameters())
    state = vae.state_dict()
    assert list(state) == list(before.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.state_dict().items())
    assert is_channels_last(vae.encoder.conv_in.weight) == bool(channels_last)
    fuse(vae, channels_last=False)  # of a fused one only the layout changes
    assert strides(vae) == laid_out
    assert unfuse(fuse(fuse(vae))) is vae
    assert [type(module) for module in vae.modules()] == [type(module) for module in before.modules()]
    assert [sorted(vars(module)) for module in vae.modules()] == [sorted(vars(module)) for module in before.modules()]
    assert strides(vae) == laid_out
    assert all(map(torch.equal, results(vae, image), expected))
    assert unfuse(vae) is vae


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_results_are_laid_out_as_before_or_channels_last(batch, image):
    """A batch of one comes out of diffusers' attention with strides that are neither layout's."""
    image = image[:batch]
    vae = make()
    before = [result.stride() for result in results(vae, image)]
    assert [result.stride() for result in results(fuse(vae, channels_last=False), image)] == before
    assert all(map(is_channels_last, results(fuse(vae, channels_last=True), image)))


def test_a_saved_folder_is_the_same_bytes(tmp_path):
    vae = make()
    vae.save_pretrained(tmp_path / "before")
    fuse(vae, channels_last=True).save_pretrained(tmp_path / "fused")
    for path in (tmp_path / "before").iterdir():
        assert (tmp_path / "fused" / path.name).read_bytes() == path.read_bytes()
    loaded = AutoencoderKL.from_pretrained(tmp_path / "fused")
    assert type(loaded.decoder) is type(make().decoder)
    vae.load_state_dict(load_file(tmp_path / "before" / "diffusion_pytorch_model.safetensors"))
    assert is_channels_last(vae.decoder.conv_in.weight)


def gradients(vae: Any, image: Tensor) -> list[Tensor]:
    leaf = image.clone().requires_grad_()
    loss = sum(result.square().mean() for result in results(vae, leaf))
    return list(torch.autograd.grad(loss, [leaf, *vae.parameters()], materialize_grads=True))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients(checkpointing, image, calls):
    vae = make().train()
    exact = gradients(copy.deepcopy(vae).double(), image.double())
    if checkpointing:
        vae.enable_gradient_checkpointing()
    entered: list[nn.Module] = []
    for block in vae.modules():
        if isinstance(block, ResnetBlock2D):
            block.register_forward_pre_hook(lambda block, _: entered.append(block))
    plain, entered_before = gradients(vae, image), entered.copy()
    entered.clear()
    own = gradients(fuse(vae), image)
    assert entered == entered_before
    assert len(entered) == 13 * (1 + checkpointing)
    assert len(calls) >= 28
    scale = max(float(correct.norm()) for correct in exact)
    for mine, other, correct in zip(own, plain, exact, strict=True):
        distances = [float((gradient.double() - correct).norm()) for gradient in (mine, other)]
        assert distances[0] <= 2 * distances[1] + 1e-6 * scale


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_alone(part, image, calls):
    vae = make()
    expected = results(vae, image)
    fuse(getattr(vae, part))
    actual = results(vae, image)
    assert len(calls) == {"encoder": 11, "decoder": 17}[part]
    assert all(error(own, plain.double()) <= 1e-5 for own, plain in zip(actual, expected, strict=True))
    unfuse(vae)
    assert all(map(torch.equal, results(vae, image), expected))


@torch.no_grad()
@pytest.mark.parametrize("option", ["slicing", "tiling"])
def test_slices_and_tiles(option, image):
    vae = make()
    getattr(vae, f"enable_{option}")()
    expected = results(vae, image)
    actual = results(fuse(vae), image)
    assert all(error(own, plain.double()) <= 1e-5 for own, plain in zip(actual, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_it_compiles_in_one_graph(compiler, image, assert_same):
    torch.compiler.reset()
    vae = fuse(make())
    expected = results(vae, image)
    decode = torch.compile(vae.decoder, fullgraph=True, dynamic=False, backend=compiler)
    latent = vae.post_quant_conv(expected[0][:, :4])
    assert_same(decode(latent), expected[1])
    with torch.compiler.set_stance("fail_on_recompile"):
        decode(latent)


@torch.no_grad()
def test_a_compiled_model_is_right_after_fusing_and_after_unfusing(image, assert_same):
    torch.compiler.reset()
    block = make().decoder.up_blocks[0].resnets[0]
    x = torch.randn(2, 32, 6, 5)
    block.compile(fullgraph=True, dynamic=False, backend="aot_eager")
    expected = block(x, None)
    assert_same(fuse(block)(x, None), expected)
    assert_same(unfuse(block)(x, None), expected)


def test_an_exported_decoder_calls_the_operator(assert_same):
    decoder = fuse(make()).decoder
    latent = torch.randn(2, 4, 6, 5)
    program = torch.export.export(decoder, (latent,))
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.litevae_kernels.group_norm_silu.default) == 17
    assert_same(program.module()(latent), decoder(latent))


@torch.no_grad()
def test_copies_pickles_and_casts(image):
    vae = fuse(make(), channels_last=True)
    expected = results(vae, image)
    buffer = io.BytesIO()
    torch.save(vae, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(vae), torch.load(buffer, weights_only=False)):
        assert all(map(torch.equal, results(other, image), expected))
        assert strides(unfuse(other)) == strides(make())
        assert is_channels_last(vae.decoder.conv_in.weight)
    half = fuse(make(), channels_last=True).to(torch.bfloat16)
    torch.testing.assert_close(
        results(half, image.bfloat16())[1], results(fuse(make().bfloat16()), image.bfloat16())[1]
    )
    assert strides(unfuse(half)) == strides(make())


class Adapted(nn.Module):
    """A layer with a low-rank sum, as LoRA wraps it."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer, self.calls = base_layer, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.base_layer(x) * 1.5


@torch.no_grad()
@pytest.mark.parametrize("layer", ["norm1", "nonlinearity", "conv1", "conv2"])
@pytest.mark.parametrize("change", ["hook", "pre-hook", "wrapped", "patched"])
def test_a_layer_that_someone_looks_at_is_called(layer, change, image, assert_same):
    seen: dict[str, list[Tensor]] = {"plain": [], "fused": []}

    def look(name: str, vae: Any) -> Any:
        block = vae.decoder.mid_block.resnets[0]
        own = getattr(block, layer)
        if change == "hook":
            own.register_forward_hook(lambda module, given, output: seen[name].append(output))
        elif change == "pre-hook":
            own.register_forward_pre_hook(lambda module, given: seen[name].append(given[0]))
        elif change == "wrapped":
            setattr(block, layer, Adapted(own))
        else:
            forward = own.forward
            own.forward = lambda x: seen[name].append(x) or forward(x)
        return results(vae, image)

    expected, actual = look("plain", make()), look("fused", fuse(make()))
    assert_same(actual[1], expected[1])
    assert len(seen["fused"]) == len(seen["plain"])
    for own, plain in zip(seen["fused"], seen["plain"], strict=True):
        assert_same(own, plain, tolerance=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("fused_first", [True, False])
def test_with_offloading_and_layerwise_casting(fused_first, image, assert_same):
    accelerate = pytest.importorskip("accelerate")

    def prepare(vae: Any, change: Any) -> list[Tensor]:
        if fused_first:
            fuse(vae)
        change(vae)
        return results(vae if fused_first else fuse(vae), image)

    def cast(vae: Any) -> None:
        vae.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)

    assert_same(
        prepare(make(), lambda vae: accelerate.cpu_offload(vae, execution_device="cpu"))[1], results(make(), image)[1]
    )
    plain = make()
    cast(plain)
    assert_same(prepare(make(), cast)[1], results(plain, image)[1])


def test_a_pipeline_draws_the_same_image():
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4, "patch_size": 2}
    transformer = DiTTransformer2DModel(in_channels=4, out_channels=4, num_embeds_ada_norm=1000, **sizes).eval()
    pipeline = DiTPipeline(transformer, make(), DDIMScheduler(), id2label={0: "cat"})
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.tensor(pipeline([0, 1], generator=generator, num_inference_steps=2, output_type="np").images)

    before = draw()
    fuse(pipeline.vae)
    torch.testing.assert_close(draw(), before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_what_the_original_takes_it_takes(calls, assert_same):
    """A summand for `temb`, a factor of the output, other groups, no affine parameters, a shortcut."""
    torch.manual_seed(0)
    options = {"groups": 4, "groups_out": 2, "output_scale_factor": 1.7, "temb_channels": None, "eps": 1e-3}
    block = ResnetBlock2D(in_channels=8, out_channels=12, **options)
    block.norm2 = nn.GroupNorm(3, 12, affine=False)
    x, temb = torch.randn(2, 8, 5, 6), torch.randn(2, 12, 1, 1)
    expected = [block(x, None), block(x, temb)]
    fuse(block)
    assert_same(block(x, None), expected[0])
    assert_same(block(x, temb), expected[1])
    assert len(calls) == 4


def test_where_there_is_no_kernel_pytorch_runs(monkeypatch, image):
    """The operator's plain definition is slower than GroupNorm and SiLU."""
    monkeypatch.setenv("LITEVAE_KERNELS_BACKEND", "reference")
    monkeypatch.setattr(room, "group_norm_silu", lambda *_: pytest.fail("the definition ran"))
    results(fuse(make()), image)
    monkeypatch.delenv("LITEVAE_KERNELS_BACKEND")
    assert not room._device_has_kernel("mps", None)
    assert room._device_has_kernel("cpu", None) == backends()["cpu"].available


class Quantised(Tensor):
    """As the packages that quantise replace the data of a weight."""


def test_quantised_weights_keep_their_layout_and_reach_pytorch(calls):
    vae = make()
    convolution = vae.decoder.mid_block.resnets[0].conv2
    convolution.weight = nn.Parameter(convolution.weight.detach().as_subclass(Quantised))
    data = convolution.weight.data_ptr()
    fuse(vae, channels_last=True)
    assert convolution.weight.data_ptr() == data
    x = torch.randn(1, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 4, 3, 3)
    with torch.no_grad():
        assert onednn.can_run(x, x, weight, None) == torch.backends.mkldnn.is_available()
        assert not onednn.can_run(x, x, nn.Parameter(weight.as_subclass(Quantised)), None)


@torch.no_grad()
def test_a_decoder_with_group_norms_takes_no_embedding():
    decoder, latent = make().decoder, torch.randn(1, 4, 2, 2)
    for module in (decoder, fuse(decoder)):
        with pytest.raises(TypeError, match="positional argument"):
            module(latent, torch.randn(1, 32, 1, 1))


def patched() -> Any:
    vae = make()
    vae.decoder.mid_block.resnets[0].forward = lambda *_: None
    return vae


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: 3, TypeError, "module must be a torch.nn.Module, got 3"),
    (lambda: type("Pipeline", (), {"vae": None})(), TypeError, "pass its vae"),
    (lambda: nn.Conv2d(3, 3, 1), ValueError, "got Conv2d, which has no norms"),
    (lambda: nn.Sequential(nn.GroupNorm(1, 3), nn.SiLU()), ValueError, "got a GroupNorm in Sequential, at '0'"),
    (lambda: diffusers.AutoencoderTiny(), ValueError, "got AutoencoderTiny, which has no norms"),
    (
        lambda: diffusers.AutoencoderDC(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            latent_channels=4,
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
        ),
        ValueError,
        "got AutoencoderDC, which has RMSNorm; module.to",
    ),
    (lambda: make(act_fn="gelu"), ValueError, "a GELU for the SiLU of ResnetBlock2D, at 'encoder.down_blocks.0"),
    (
        lambda: make("VQModel", norm_type="spatial", block_out_channels=(32,) * 3),
        ValueError,
        "a SpatialNorm for the GroupNorm of Decoder",
    ),
    (
        lambda: diffusers.AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",), block_out_channels=(32,)
        ),
        ValueError,
        "got a GroupNorm in TemporalDecoder, at 'decoder.conv_norm_out'; where a part",
    ),
    (
        lambda: ResnetBlock2D(in_channels=8, groups=4, temb_channels=4),
        ValueError,
        "got a time embedding in ResnetBlock2D",
    ),
    (
        lambda: ResnetBlock2D(in_channels=8, groups=4, temb_channels=None, time_embedding_norm="scale_shift"),
        ValueError,
        "got a time embedding in ResnetBlock2D",
    ),
    (lambda: ResnetBlock2D(in_channels=8, groups=4, temb_channels=None, up=True), ValueError, "got resampling within"),
    (patched, ValueError, "replaced, got 'decoder.mid_block.resnets.0'; remove it"),
    (
        lambda: LiteVAE.from_preset("S", block_out_channels=(16,) * 4),
        ValueError,
        "got a GroupNormSiLU in ResBlock",
    ),
]


@pytest.mark.parametrize(("build", "kind", "message"), REFUSED)
def test_what_it_does_not_know_is_refused_by_name_and_unchanged(build, kind, message):
    module = build()
    kinds = [type(part) for part in module.modules()] if isinstance(module, nn.Module) else []
    with pytest.raises(kind, match=re.escape(message)):
        fuse(module)
    if kinds:
        assert [type(part) for part in module.modules()] == kinds


def test_the_other_arguments_are_checked():
    with pytest.raises(TypeError, match="channels_last must be a bool or None, got 'yes'"):
        fuse(make(), channels_last="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module"):
        unfuse(None)  # type: ignore[type-var]
    vae = fuse(make())
    vae.decoder.forward = vae.decoder.forward
    with pytest.raises(ValueError, match="got 'decoder'; remove it"):
        unfuse(vae)
    assert type(vae.encoder) is room.FusedEncoder


def test_part_of_a_model_that_is_refused():
    vae = diffusers.AutoencoderKLTemporalDecoder(down_block_types=("DownEncoderBlock2D",), block_out_channels=(32,))
    assert type(fuse(vae.encoder)) is room.FusedEncoder
