"""Does gradient checkpointing change nothing but the memory that training needs?"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litevae import LiteVAE
from litevae.cost import peak_tensor_bytes
from litevae.models.blocks import ResBlock
from litevae.models.decoder import Upsample
from litevae_kernels import haar_dwt2d

VARIANTS: list[dict[str, Any]] = [
    {"use_quant_conv": True, "dropout": 0.3},
    {"decoder_normalization": "smc", "dropout": 0.3},
    {"output_type": "wavelet", "decoder_normalization": "smc", "decoder_outer_norm": True},
]


def level_1(output: Any) -> Tensor:
    """The reconstruction's sub-bands, from the decoder where it gives them."""
    return haar_dwt2d(output.sample, 1, scaling="mean")[0] if output.wavelet is None else output.wavelet


def step(model: nn.Module, image: Tensor) -> list[Tensor]:
    """The output and every gradient; noise and dropout are the same in every call."""
    torch.manual_seed(3)
    output = model(image, sample_posterior=True)
    loss = (output.sample - image).abs().mean() + level_1(output).square().mean() + output.latent_dist.kl().mean()
    return [output.sample, *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("arguments", VARIANTS)
@pytest.mark.parametrize("autocast", [False, True])
def test_results_and_gradients_are_bit_equal(make_model, image, arguments, autocast):
    model = make_model(**arguments).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = step(model, image)
        model.enable_gradient_checkpointing()
        assert model.is_gradient_checkpointing
        actual = step(model, image)
        assert all(map(torch.equal, actual, expected))


def runs_of_blocks(model: nn.Module, image: Tensor) -> list[int]:
    """How often each ResBlock and Upsample is entered in a forward and, if there is one, a backward pass."""
    runs: Counter[nn.Module] = Counter()
    blocks = [module for module in model.modules() if isinstance(module, (ResBlock, Upsample))]
    handles = [block.register_forward_pre_hook(lambda block, _: runs.update([block])) for block in blocks]
    output = model(image).sample
    if output.requires_grad:
        output.sum().backward()
    for handle in handles:
        handle.remove()
    return [runs[block] for block in blocks]


def test_every_block_runs_twice_in_training_alone(make_model, image):
    model = make_model()
    model.enable_gradient_checkpointing()
    assert set(runs_of_blocks(model.train(), image)) == {2}
    with torch.no_grad():
        assert set(runs_of_blocks(model, image)) == {1}
    assert set(runs_of_blocks(model.eval(), image)) == {1}
    model.train().disable_gradient_checkpointing()
    assert set(runs_of_blocks(model, image)) == {1}


def test_a_function_of_one_s_own_gets_each_block(make_model, image):
    model, seen = make_model().train(), []

    def remember(block: nn.Module, *inputs: Tensor) -> Tensor:
        seen.append(block)
        return block(*inputs)

    model.enable_gradient_checkpointing(remember)
    model(image)
    assert set(seen) == {module for module in model.modules() if isinstance(module, (ResBlock, Upsample))}
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("normalization", ["group_norm", "smc"])
def test_litevae_b_needs_less_than_half_the_memory(normalization):
    """Forward and backward at 256x256, beside the parameters: 0.40 of the bytes."""

    def peak() -> int:
        return peak_tensor_bytes(lambda x: step(model, x), torch.empty(2, 3, 256, 256, device="meta"))

    with torch.device("meta"):
        model = LiteVAE.from_preset("B", decoder_normalization=normalization).train()
    kept = peak()
    model.enable_gradient_checkpointing()
    assert peak() < 0.41 * kept


def test_distributed_data_parallel_synchronises_every_gradient(make_model, image, tmp_path):
    model = make_model(decoder_normalization="smc").train()
    expected = step(copy.deepcopy(model), image)[1:]
    model.enable_gradient_checkpointing()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        synchronised: list[int] = []

        def double(state, bucket):
            synchronised.extend(gradient.numel() for gradient in bucket.gradients())
            future = torch.futures.Future()
            future.set_result(2 * bucket.buffer())
            return future

        parallel.register_comm_hook(None, double)
        torch.manual_seed(3)
        output = parallel(image, sample_posterior=True)
        loss = (output.sample - image).abs().mean() + level_1(output).square().mean() + output.latent_dist.kl().mean()
        loss.backward()
    finally:
        torch.distributed.destroy_process_group()
    assert sum(synchronised) == sum(parameter.numel() for parameter in model.parameters())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 2 * gradient)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("part", ["encoder.aggregation", "decoder"])
def test_compiles_in_one_graph(make_model, assert_same, part):
    torch.compiler.reset()
    model = make_model(aggregation_multipliers=(1,)).train()
    model.enable_gradient_checkpointing()
    module = model.get_submodule(part)
    x = torch.rand((2, 4, 2, 3) if part == "decoder" else (2, 36, 4, 6))
    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend="aot_eager")
    parameters = list(module.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(compiled(x).square().mean(), parameters),
        torch.autograd.grad(module(x).square().mean(), parameters),
        strict=True,
    ):
        assert_same(ours, theirs, 1e-4)
