"""Does every encoder do what the paper's does: sizes, gradients, half precision, compilers, files, slices?"""

from __future__ import annotations

import copy
import io
import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litevae import LiteVAE
from litevae.cost import parameter_count, peak_tensor_bytes
from litevae.models.blocks import ResBlock, SMConv2d
from litevae.models.decoder import Decoder
from litevae.models.encoder import build_encoder
from litevae.models.nafnet import NAFBlock
from litevae.models.serving import bytes_per_sample
from litevae.models.vit import TransformerBlock

from .precision import LAYERS, exact, relative_error, rounded_once
from .variants import NARROW, VARIANTS

FACTORS = {name: {"f4": 4, "f16": 16}.get(name, 8) for name in VARIANTS}
DWT = [name for name in VARIANTS if name.startswith("dwt")]
# Of size B with 4 latent channels, where nothing else is given, and what the paper says or what it follows from.
PARAMETERS: list[tuple[dict[str, Any], str, int]] = [
    ({"extraction": "nafnet"}, "encoder", 6_772_260),  # no number; one extractor 1,692,556, B's 1,686,220
    ({"extraction": "nafnet", "latent_channels": 12}, "encoder", 6_776_884),
    ({"name": "S", "shared_extraction": True}, "encoder", 521_900),  # Table 19 has no numbers
    ({"shared_extraction": True}, "encoder", 3_380_812),
    ({"name": "M", "shared_extraction": True}, "encoder", 12_047_308),
    ({"name": "L", "shared_extraction": True}, "encoder", 20_719_564),
    ({"name": "S", "shared_extraction": True, "latent_channels": 12}, "encoder", 524_220),
    ({"shared_extraction": True, "latent_channels": 12}, "encoder", 3_385_436),
    ({"name": "M", "shared_extraction": True, "latent_channels": 12}, "encoder", 12_051_932),
    ({"name": "L", "shared_extraction": True, "latent_channels": 12}, "encoder", 20_728_796),
    ({"aggregation": "vit"}, "encoder.aggregation", 840_072),  # 0.84 M in Table 20
    ({}, "encoder.aggregation", 1_691_976),  # 1.69 M there
    ({"wavelet_levels": (2, 3)}, "encoder", 5_062_268),  # two of three extractors, one convolution of stride 2
    ({"wavelet_levels": (1, 2), "block_out_channels": (8, 8, 8)}, "encoder", 5_062_268),  # the same layers
    # B's, an extractor, a strided convolution (12 * 12 * 9 + 12), 12 more channels into the aggregator (12 * 32 * 9)
    (
        {"wavelet_levels": (1, 2, 3, 4), "block_out_channels": (8,) * 5},
        "encoder",
        6_753_252 + 1_686_220 + 1_308 + 3_456,
    ),
    # For GroupNorm's two a channel, SMC has one a channel and one; of a UNet's 14 blocks, 1344 channels in, 960 out
    ({"encoder_normalization": "smc"}, "encoder", 6_753_252 - 4 * (1344 + 960 - 28)),
    ({"encoder_normalization": "none"}, "encoder", 6_753_252 - 4 * 2 * (1344 + 960)),
    ({"encoder_type": "dwt", "latent_channels": 12}, "encoder", 0),
    ({"encoder_type": "dwt", "latent_channels": 12}, "decoder", 49_527_043),
    ({"encoder_type": "dwt-2", "latent_channels": 48}, "decoder", 49_692_931),
]


@pytest.fixture
def make(make_model):
    return lambda name, **arguments: make_model(**{**NARROW, **VARIANTS[name], **arguments})


def images(name: str, height: int = 2, width: int = 3, batch: int = 2) -> Tensor:
    """Noise in [-1, 1], of so many places of the latent."""
    generator, factor = torch.Generator().manual_seed(1), FACTORS[name]
    return torch.rand(batch, 3, factor * height, factor * width, generator=generator) * 2 - 1


@pytest.mark.parametrize(("arguments", "part", "expected"), PARAMETERS, ids=str)
def test_parameter_count(arguments, part, expected):
    with torch.device("meta"):
        model = LiteVAE.from_preset(**{"name": "B", **arguments})
    assert parameter_count(model.get_submodule(part)) == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_every_size_the_factor_divides(make, name):
    model, factor = make(name), FACTORS[name]
    assert (
        model.downsampling == 2 ** (len(model.config.block_out_channels) - 1) == factor
    )  # diffusers' vae_scale_factor
    for height, width in ((1, 1), (2, 5)):
        output = model(images(name, height, width))
        assert output.latent.shape == (2, model.latent_channels, height, width)
        assert output.sample.shape == (2, 3, height * factor, width * factor)
        assert output.sample.isfinite().all()
    with pytest.raises(ValueError, match=f"image must have a height and a width that are multiples of {factor}, got"):
        model(torch.zeros(1, 3, factor, factor + factor // 2))


@pytest.mark.parametrize("name", VARIANTS)
def test_checkpointing_gives_the_same_finite_gradients(make, name):
    """Bit for bit, every block twice; every parameter has one, and of a weight it is not 0."""
    model, image, runs = make(name, dropout=0.3).train(), images(name), Counter()
    for block in model.modules():
        if isinstance(block, ResBlock | NAFBlock | TransformerBlock):
            block.register_forward_pre_hook(lambda block, _: runs.update([block]))

    def gradients() -> list[Tensor]:
        torch.manual_seed(3)
        output = model(image, sample_posterior=True)
        loss = (output.sample - image).abs().mean() + output.latent_dist.kl().mean()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    expected = gradients()
    model.enable_gradient_checkpointing()
    once = dict(runs)
    for (parameter, own), again in zip(zip(model.named_parameters(), expected, strict=True), gradients(), strict=True):
        assert own.isfinite().all(), parameter[0]
        assert own.any() or own.dim() <= 1, parameter[0]
        assert torch.equal(own, again), parameter[0]
    assert dict(runs) == {block: 3 * count for block, count in once.items()}  # once before, then twice


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_every_precision_is_float64_up_to_its_rounding(make, name, assert_same):
    model, image = make(name), images(name)
    for part, x in ((model.encoder, image), (model.decoder, model.encode(image).latent_dist.mode())):
        expected = exact(part)(x.double())
        assert_same(part(x), expected.float())
        for dtype in (torch.bfloat16, torch.float16):
            actual, rounded = copy.deepcopy(part).to(dtype)(x.to(dtype)), x.to(dtype).double()
            assert actual.dtype == dtype
            if name in DWT and part is model.encoder:  # no layers: a level is rounded at most once
                assert relative_error(actual, exact(part)(rounded)) < 3 * torch.finfo(dtype).eps
            else:
                once = relative_error(rounded_once(part, dtype)(rounded), expected)
                assert 0 < relative_error(actual, expected) < LAYERS * once


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_pixels_of_8_bits(make, name, assert_same):
    """The values p / 127.5 - 1, in the dtype of the model, whether the encoder has parameters or not."""
    model = make(name)
    pixels = images(name).add(1).mul(127.5).round().to(torch.uint8)
    expected = exact(model.encoder)(pixels.double() / 127.5 - 1)
    assert_same(model.encoder(pixels), expected.float())
    half = model.bfloat16().encode(pixels).latent_dist
    assert half.parameters.dtype == torch.bfloat16
    mean = expected.chunk(2, dim=1)[0]  # of a DWT exact pixels are rounded once, at the end
    assert relative_error(half.mean, mean) < (torch.finfo(torch.bfloat16).eps if name in DWT else 0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", VARIANTS)
def test_autocast(make, name, dtype):
    """Layers in half precision, norms and what is no layer's in float32; every parameter gets a gradient."""
    model, image = make(name), images(name)
    with torch.autocast("cpu", dtype=dtype):
        output = model(image)
    with torch.no_grad():
        expected = exact(model)(image.double())
        once = relative_error(rounded_once(model, dtype)(image.to(dtype).double()).sample, expected.sample)
    assert 0 < relative_error(output.sample.detach(), expected.sample) < LAYERS * once
    output.sample.float().square().mean().backward()
    decoder = [parameter.grad for parameter in model.decoder.parameters()]
    encoder = [parameter.grad for parameter in model.encoder.aggregation.parameters()] if name not in DWT else []
    assert all(gradient is not None and gradient.isfinite().all() for gradient in (*decoder, *encoder))


def test_files_from_before_there_were_variants(make, tmp_path):
    """A config.json without the newer arguments is that of the paper's encoder."""
    torch.manual_seed(0)
    model = LiteVAE.from_preset("S", block_out_channels=(8, 8, 16, 16)).eval()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    newer = ("encoder_type", "wavelet_levels", "extraction", "shared_extraction", "nafnet_width", "nafnet_blocks",
             "aggregation", "vit_width", "vit_depth", "vit_heads", "encoder_normalization")  # fmt: skip
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in newer}))
    loaded = LiteVAE.from_pretrained(tmp_path)
    assert loaded.architecture == model.architecture
    image = torch.rand(1, 3, 16, 8)
    with torch.no_grad():
        assert torch.equal(loaded(image).sample, model(image).sample)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_activations_are_channels_last(make, name):
    model, formats = make(name), {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | SMConv2d) and not path.endswith(".attention"):  # which has one place
            module.register_forward_hook(lambda *call, path=path: formats.update({path: call[2]}))
    moments = model(images(name)).latent_dist.parameters
    assert len(formats) > 10
    wrong = [path for path, x in formats.items() if not x.is_contiguous(memory_format=torch.channels_last)]
    assert wrong == []
    assert moments.is_contiguous()


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_slices_give_the_same(make, name, assert_same):
    model, image = make(name), images(name, 16, 8, batch=3)
    expected = model(image)
    for build, part, x in ((build_encoder, model.encoder, image), (Decoder, model.decoder, expected.latent)):
        per_sample = bytes_per_sample(build, model.architecture, *x.shape[-2:], torch.float32)
        peaks = [peak_tensor_bytes(part, torch.zeros(n, *x.shape[1:])) for n in (2, 5)]
        assert peaks[1] - peaks[0] == 3 * per_sample
    seen: list[int] = []
    model.decoder.register_forward_pre_hook(lambda part, inputs: seen.append(len(inputs[0])))
    for budget in ({"slice_size": 2}, {"memory_budget": 2 * per_sample}):  # of the decoder, the last of the loop
        seen.clear()
        model.enable_slicing(**budget)
        output = model(image)
        assert seen == [2, 1]
        assert_same(output.latent, expected.latent)
        assert_same(output.sample, expected.sample)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_files_hold_the_same_model(make, name, tmp_path):
    model, image = make(name), images(name)
    model.save_pretrained(tmp_path)
    loaded = LiteVAE.from_pretrained(tmp_path)
    assert loaded.architecture == model.architecture
    assert torch.equal(loaded(image).sample, model(image).sample)
    half = LiteVAE.from_pretrained(tmp_path, torch_dtype=torch.bfloat16, low_cpu_mem_usage=False)
    assert torch.equal(half(image).sample, model.bfloat16()(image).sample)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_optimized_for_inference_it_gives_the_same(make, name, assert_same):
    model, image = make(name), images(name)
    model.decoder.conv_out.weight.mul_(3)  # a copy has it
    fast = model.optimize_for_inference(compile=True)
    assert not any(isinstance(module, SMConv2d) for module in fast.modules())
    with torch.compiler.set_stance("force_eager"):
        assert_same(fast(image).sample, model(image).sample)
    assert fast.encoder._compiled_call_impl is not None
    if name == "smc-encoder":
        assert (fast.config.encoder_normalization, fast.config.decoder_normalization) == ("none", "none")


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_layerwise_casting(make, name, storage):
    """Which leaves norms, and parameters that are no layer's, in float32."""
    pixels = images(name).add(1).mul(127.5).round().to(torch.uint8)
    for compute, tolerance in ((torch.float32, 0), (torch.bfloat16, 0.1)):
        model = make(name)
        model.enable_layerwise_casting(storage_dtype=storage, compute_dtype=compute)
        latent, same = (model.encode(x).latent_dist.mode() for x in (pixels / 127.5 - 1, pixels))
        assert latent.dtype == same.dtype == model.decode(latent).sample.dtype == compute
        assert (latent - same).norm() <= tolerance * latent.norm()


@pytest.mark.parametrize("name", ["nafnet", "vit", *DWT])
@torch.no_grad()
def test_weights_that_are_moved_where_they_are_needed(make, name, assert_same):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    image, cpu = images(name), torch.device("cpu")
    expected = make(name)(image).sample
    accelerate.cpu_offload(model := make(name), cpu)
    assert_same(model(image).sample, expected, tolerance=1e-4)
    for kind in ("block_level", "leaf_level"):
        model = make(name)
        blocks = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        model.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type=kind, **blocks)
        assert_same(model(image).sample, expected, tolerance=1e-4)


def marked(*fast: str) -> list[Any]:
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]


@pytest.mark.parametrize("name", marked("nafnet", "dwt-2"))
def test_the_encoder_compiles_in_one_graph(make, name, assert_same):
    torch.compiler.reset()
    encoder, image = make(name).encoder, images(name)
    assert_same(torch.compile(encoder, fullgraph=True, dynamic=False, backend="aot_eager")(image), encoder(image))


@pytest.mark.parametrize("name", marked("vit"))
@torch.no_grad()
def test_parts_are_exported_for_every_size(make, name, assert_same):
    model = make(name)
    batch, height, width = (torch.export.Dim(side, min=1, max=64) for side in ("batch", "height", "width"))
    decoders = [("decoder", 1)] if name in ("f4", "f16", "dwt-2") else []  # the others have f8's
    for part, factor in [("encoder", FACTORS[name]), *decoders]:
        module = getattr(model, part)
        inputs = [images(name, *shape) for shape in ((2, 3, 2), (3, 2, 1), (5, 4, 3))]
        if part == "decoder":
            inputs = [model.encode(image).latent_dist.mode() for image in inputs]
        sizes = ({0: batch, 2: factor * height, 3: factor * width},)
        file = io.BytesIO()
        torch.export.save(torch.export.export(module, (inputs[0],), dynamic_shapes=sizes), file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        for x in inputs[1:]:
            assert_same(loaded(x), module(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nafnet", "vit"])
@torch.no_grad()
def test_inductor_gives_the_same(make, name, assert_same):
    torch.compiler.reset()
    encoder, image = make(name).encoder, images(name)
    network = encoder.extraction[0] if name == "nafnet" else encoder.aggregation
    x = torch.randn(2, network.conv_in.in_channels, *image.shape[-2:])
    assert_same(torch.compile(network, fullgraph=True, dynamic=False)(x), network(x))
