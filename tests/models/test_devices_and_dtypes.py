"""Does LiteVAE move, cast, offload and load as diffusers' AutoencoderKL does?

What both are after each call is compared, and LiteVAE's result with that of the model as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from litevae import LiteVAE, StableDiffusionVAE

IMAGE = torch.linspace(-1, 1, 3 * 32 * 24).reshape(1, 3, 32, 24)
LATENT = torch.linspace(-1, 1, 4 * 4 * 3).reshape(1, 4, 4, 3)
CPU, FP8 = torch.device("cpu"), torch.float8_e4m3fn
PARTS = ("encoder", "decoder", "quant_conv", "post_quant_conv")
VARIANTS: dict[str, dict[str, Any]] = {
    "group-norm": {},
    "smc": {"decoder_normalization": "smc", "encoder_normalization": "smc"},
    "quant-conv": {"use_quant_conv": True, "output_type": "wavelet"},
    "other-networks": {"extraction": "nafnet", "nafnet_width": 8, "nafnet_blocks": 1, "aggregation": "vit",
                       "vit_width": 16, "vit_depth": 1},
}  # fmt: skip


def autoencoder_kl() -> Any:
    torch.manual_seed(0)
    model: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return model.eval()


@pytest.fixture(params=["group-norm", "smc", *(pytest.param(name, marks=pytest.mark.slow) for name in [*VARIANTS][2:])])
def model(request, make_model) -> LiteVAE:
    return make_model(**VARIANTS[request.param])


def reached(vae: Any) -> tuple[Any, ...]:
    """What a user sees of a model: its dtype and device, and those of its results."""
    results = results_of(vae, vae.dtype)
    return vae.dtype, vae.device, *((x.dtype, x.device, bool(x.isfinite().all())) for x in results)


@torch.no_grad()
def results_of(vae: Any, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return vae.encode(IMAGE.to(dtype)).latent_dist.mode(), vae.decode(LATENT.to(dtype)).sample


CASTS: dict[str, Callable[[Any], Any]] = {
    "half": lambda vae: vae.half(),
    "bfloat16": lambda vae: vae.bfloat16(),
    "double": lambda vae: vae.double(),
    "to(dtype)": lambda vae: vae.to(torch.float16),
    "to(dtype=)": lambda vae: vae.to(dtype=torch.bfloat16),
    "to(device, dtype)": lambda vae: vae.to("cpu", torch.float16),
    "to(device=, dtype=)": lambda vae: vae.to(device=CPU, dtype=torch.float16),
    "to(tensor)": lambda vae: vae.to(torch.zeros(1, dtype=torch.float16)),
    "half, float": lambda vae: vae.half().float(),
}


@pytest.mark.parametrize("name", CASTS)
def test_casts(make_model, name):
    ours = CASTS[name](make_model(use_quant_conv=True))
    assert reached(ours) == reached(CASTS[name](autoencoder_kl()))
    assert ours.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_to_meta_and_back():
    for vae in (LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8)), autoencoder_kl()):
        assert vae.to("meta").device.type == "meta"
        assert vae.to_empty(device="cpu").device == CPU


def test_an_sdxl_pipeline_s_upcast(make_model):
    """What StableDiffusionXLPipeline does of a float16 model that asks for it, line by line."""
    for vae in (make_model(use_quant_conv=True, force_upcast=True).half(), autoencoder_kl().half()):
        assert vae.dtype == torch.float16
        assert vae.config.force_upcast
        latents = LATENT.half()
        vae.to(dtype=torch.float32)
        latents = latents.to(next(iter(vae.post_quant_conv.parameters())).dtype)
        image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        assert image.dtype == torch.float32
        vae.to(dtype=torch.float16)
        assert vae.dtype == torch.float16


LOADS: dict[str, dict[str, Any]] = {
    "torch_dtype": {"torch_dtype": torch.float16},
    "dtype": {"dtype": torch.bfloat16},
    "low_cpu_mem_usage": {"low_cpu_mem_usage": True, "torch_dtype": torch.float16},
    "without low_cpu_mem_usage": {"low_cpu_mem_usage": False, "torch_dtype": torch.float16},
    "device_map auto": {"device_map": "auto"},
    "device_map balanced": {"device_map": "balanced", "torch_dtype": torch.bfloat16},
    "device_map cpu": {"device_map": "cpu"},
    "device_map parts": {"device_map": dict.fromkeys(PARTS, "cpu")},
    "encoder on disk": {"device_map": {**dict.fromkeys(PARTS, "cpu"), "encoder": "disk"}},
    "decoder on disk": {"device_map": {**dict.fromkeys(PARTS, "disk"), "encoder": "cpu"}},
}


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(name, variant, marks=pytest.mark.slow if "disk" in name and variant != "smc" else ())
        for name in LOADS
        for variant in (VARIANTS if "disk" in name else ["quant-conv"])
    ],
)
@pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")
def test_loads(make_model, assert_same, tmp_path, name, variant):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    model, found = make_model(**VARIANTS[variant]), []
    for kind, vae in (("ours", model), ("theirs", autoencoder_kl())):
        vae.save_pretrained(tmp_path / kind)
        place = {"offload_folder": str(tmp_path / f"{kind}-offloaded")} if "disk" in name else {}
        found.append(type(vae).from_pretrained(tmp_path / kind, **LOADS[name], **place))
    assert reached(found[0]) == reached(found[1])
    assert getattr(found[0], "hf_device_map", None) == getattr(found[1], "hf_device_map", None)
    if found[0].dtype == torch.float32:
        for ours, expected in zip(results_of(found[0]), results_of(model), strict=True):
            assert_same(ours, expected, tolerance=1e-4)


def test_a_dtype_that_is_none_is_refused(make_model, tmp_path):
    """diffusers logs a warning and loads float32."""
    make_model().save_pretrained(tmp_path)
    for name in ("torch_dtype", "dtype"):
        with pytest.raises(TypeError, match=rf"^{name} must be a torch\.dtype or None, got 'float16'; torch\.float16"):
            LiteVAE.from_pretrained(tmp_path, **{name: "float16"})
    assert LiteVAE.from_pretrained(tmp_path, torch_dtype=None).dtype == torch.float32


def offload_groups(kind: str, **options: Any) -> Callable[[Any], None]:
    return lambda vae: vae.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type=kind, **options)


def offload_layers(vae: Any) -> None:
    import accelerate

    accelerate.cpu_offload(vae, CPU, offload_buffers=True)


def offload_whole(vae: Any) -> None:
    import accelerate

    accelerate.cpu_offload_with_hook(vae, CPU)


def cast_and_offload(vae: Any) -> None:
    vae.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32)
    vae.enable_group_offload(onload_device=CPU, offload_type="leaf_level")


OFFLOADS: dict[str, Callable[[Any], None]] = {
    "groups of leaves": offload_groups("leaf_level"),
    "groups of one block": offload_groups("block_level", num_blocks_per_group=1),
    "groups of two blocks": offload_groups("block_level", num_blocks_per_group=2),
    "enable_sequential_cpu_offload": offload_layers,
    "enable_model_cpu_offload": offload_whole,
}


@pytest.mark.parametrize("name", OFFLOADS)
def test_offloads(model, assert_same, name):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    expected, theirs = results_of(model), autoencoder_kl()
    for vae in (model, theirs):
        OFFLOADS[name](vae)
    assert reached(model) == reached(theirs)
    for ours, before in zip(results_of(model), expected, strict=True):
        assert_same(ours, before, tolerance=1e-4)


@pytest.mark.parametrize(
    ("storage", "compute"), [(FP8, torch.float32), (FP8, torch.bfloat16), (torch.float8_e5m2, torch.float16)]
)
def test_layerwise_casting(model, storage, compute):
    theirs = autoencoder_kl()
    for vae in (model, theirs):
        vae.enable_layerwise_casting(storage_dtype=storage, compute_dtype=compute)
    assert reached(model) == reached(theirs)
    assert {p.dtype for p in model.parameters()} == {p.dtype for p in theirs.parameters()} == {storage, torch.float32}


def test_layerwise_casting_computes_with_the_rounded_weights(make_model, assert_same):
    model = make_model(use_quant_conv=True)
    rounded = copy.deepcopy(model)
    model.enable_layerwise_casting(storage_dtype=torch.float16, compute_dtype=torch.float32)
    with torch.no_grad():
        for ours, theirs in zip(model.parameters(), rounded.parameters(), strict=True):
            theirs.copy_(ours.to(torch.float32))
    for ours, expected in zip(results_of(model), results_of(rounded), strict=True):
        assert_same(ours, expected, tolerance=1e-4)


def test_casting_and_offloading_together(model):
    theirs = autoencoder_kl()
    for vae in (model, theirs):
        cast_and_offload(vae)
    assert reached(model) == reached(theirs)


def test_the_hook_of_enable_model_cpu_offload_is_called_by_encode_and_decode(make_model):
    hooks = pytest.importorskip("accelerate.hooks", reason="accelerate is not installed")

    class Counting(hooks.ModelHook):
        def __init__(self) -> None:
            self.calls = 0

        def pre_forward(self, module: Any, *args: Any, **options: Any) -> Any:
            self.calls += 1
            return args, options

    counts = []
    for vae in (make_model(), autoencoder_kl()):
        hook = Counting()
        hooks.add_hook_to_module(vae, hook)
        vae.encode(IMAGE)
        vae.decode(LATENT)
        counts.append(hook.calls)
    assert counts == [2, 2]


def test_the_baseline_has_the_dtype_and_device_of_what_it_wraps(tmp_path):
    model = StableDiffusionVAE(autoencoder_kl())
    model.save_pretrained(tmp_path)
    half = StableDiffusionVAE.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert reached(half) == reached(model.half()) == reached(autoencoder_kl().half())


@pytest.mark.gpu
@pytest.mark.parametrize("offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
@pytest.mark.parametrize("kind", ["litevae", "diffusers"])
def test_a_pipeline_s_offload_on_a_gpu(make_model, offload, kind):
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=1, sample_size=4,
        patch_size=2, num_embeds_ada_norm=1000,
    )  # fmt: skip
    vae = make_model() if kind == "litevae" else autoencoder_kl()
    pipe: Any = DiTPipeline(transformer=transformer.eval(), vae=vae, scheduler=DDIMScheduler(), id2label={0: "cat"})
    pipe.set_progress_bar_config(disable=True)
    getattr(pipe, offload)()
    images = pipe([0], generator=torch.Generator().manual_seed(0), num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 32, 32, 3)
    assert next(vae.parameters()).device.type in ("cpu", "meta")  # back again


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")
def test_a_model_over_two_devices(model, assert_same, tmp_path: Path):
    model.save_pretrained(tmp_path)
    loaded = LiteVAE.from_pretrained(tmp_path, device_map={**dict.fromkeys(PARTS, "cuda"), "decoder": "cpu"})
    for ours, expected in zip(results_of(loaded), results_of(model), strict=True):
        assert_same(ours.cpu(), expected, tolerance=1e-3)
