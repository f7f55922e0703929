"""Does LiteVAE stay the same inside torch.compile, DistributedDataParallel and accelerate?"""

from __future__ import annotations

import copy

import pytest
import torch

from litevae.models.blocks import ResBlock


@pytest.fixture
def make_short_model(make_model):
    """One multiplier for each UNet, which compiles in seconds."""
    return lambda **arguments: make_model(extraction_multipliers=(1,), aggregation_multipliers=(1,), **arguments)


def test_compiles_in_one_graph(make_short_model, image, assert_same):
    torch.compiler.reset()
    model = make_short_model(decoder_normalization="smc", output_type="wavelet")
    sample, latent = torch.compile(
        lambda x: model(x, return_dict=False)[::3], fullgraph=True, dynamic=False, backend="aot_eager"
    )(image)
    assert_same(sample, model(image).sample)
    assert_same(latent, model(image).latent)


@pytest.mark.parametrize("part", [pytest.param("encoder", marks=pytest.mark.slow), "decoder"])
def test_compiles_once_for_every_size(make_short_model, assert_same, part):
    torch.compiler.reset()
    module = getattr(make_short_model(), part)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for index, (batch, height, width) in enumerate([(2, 5, 6), (3, 4, 3), (4, 2, 7)]):
            shape = (batch, 3, 8 * height, 8 * width) if part == "encoder" else (batch, 4, height, width)
            x = torch.rand(shape)
            stance = "default" if index == 0 else "fail_on_recompile"
            with torch.compiler.set_stance(stance):
                assert_same(compiled(x), module(x))


@pytest.mark.slow
def test_inductor_gives_the_same(assert_same):
    """Of one block: the C++ compiler needs a minute and a half for the narrowest encoder."""
    torch.compiler.reset()
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 5)
    for normalization in ("group_norm", "smc"):
        block = ResBlock(8, 12, normalization=normalization)
        with torch.no_grad():
            assert_same(torch.compile(block, fullgraph=True, dynamic=False)(x), block(x))


def test_distributed_data_parallel_gives_the_same_gradients(make_model, image, tmp_path, assert_same):
    model = make_model(use_quant_conv=True).train()
    reference = copy.deepcopy(model)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        for module in (parallel, reference):
            output = module(image)
            (output.sample.square().mean() + output.latent_dist.kl().mean()).backward()
    finally:
        torch.distributed.destroy_process_group()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("output_type", ["image", "wavelet"])
def test_accelerate_can_convert_the_output(make_model, image, output_type):
    operations = pytest.importorskip("accelerate.utils.operations", reason="accelerate is not installed")
    output = make_model(output_type=output_type).to(torch.bfloat16)(image.to(torch.bfloat16))
    converted = operations.convert_to_fp32(output)
    for field in ("sample", "latent", *(["wavelet"] if output_type == "wavelet" else [])):
        assert torch.equal(converted[field], output[field].float())
    assert converted.latent_dist is output.latent_dist
