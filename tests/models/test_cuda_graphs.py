"""Are CUDA graphs replayed where they may be, recorded anew where they must, and is every result its own?

Without a GPU a tape stands for a graph: the operations of the recording, which a replay computes again from the same
tensors into the same results.
"""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litevae.models import cuda_graphs
from litevae.models.cuda_graphs import MOST_GRAPHS, WARM_UP_CALLS, CudaGraphs


class Tape(TorchDispatchMode):
    """A CUDA graph of operations on CPU tensors."""

    recorded = 0

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []

    def __enter__(self) -> Any:
        Tape.recorded += 1
        return super().__enter__()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = operator(*args, **(kwargs or {}))
        self.operations.append((operator, args, kwargs or {}, results))
        return results

    def replay(self) -> None:
        for operator, args, kwargs, results in self.operations:
            for old, new in zip(tree_leaves(results), tree_leaves(operator(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Nothing:
    """A stream, an event: their order is that of the calls."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given: None


@pytest.fixture(autouse=True)
def tapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", lambda tape, **options: tape)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    for name in ("Stream", "current_stream", "Event", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, Nothing)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    may_be_recorded = cuda_graphs._may_be_recorded
    monkeypatch.setattr(Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr(Tape, "recorded", 0)
    assert may_be_recorded(torch.zeros(1))


@pytest.fixture
def encoder(make_model) -> nn.Module:
    return make_model().eval().requires_grad_(False).encoder


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_replays_follow_the_images_and_the_weights(encoder: nn.Module, assert_same: Any):
    graphs = CudaGraphs(encoder)
    with torch.inference_mode():
        results = [graphs(images(2, 3, 32, 32, seed=seed)) for seed in range(3)]
        for seed, result in enumerate(results):  # none is overwritten by the next
            assert_same(result, encoder(images(2, 3, 32, 32, seed=seed)))
    for parameter in encoder.parameters():
        parameter.mul_(1.5)
    assert_same(graphs(images(2, 3, 32, 32)), encoder(images(2, 3, 32, 32)))
    assert Tape.recorded == 1


def test_what_is_recorded_is_a_warm_call(encoder: nn.Module):
    calls: list[int] = []
    encoder.register_forward_hook(lambda *called: calls.append(Tape.recorded))
    graphs = CudaGraphs(encoder)
    graphs(images(1, 3, 32, 32))
    graphs(images(1, 3, 32, 32))
    assert calls == [0] * WARM_UP_CALLS + [1]


def moved(encoder: nn.Module) -> None:
    encoder.to(torch.float64).to(torch.float32)


def assigned(encoder: nn.Module) -> None:
    encoder.load_state_dict({name: weight * 2 for name, weight in encoder.state_dict().items()}, assign=True)


def replaced(encoder: nn.Module) -> None:
    name = next(name for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, child = name.rpartition(".")
    setattr(encoder.get_submodule(parent), child, copy.deepcopy(encoder.get_submodule(name)))


def in_training(encoder: nn.Module) -> None:
    encoder.train()


@pytest.mark.parametrize("change", [moved, assigned, replaced, in_training], ids=lambda change: change.__name__)
def test_other_weights_are_recorded_anew(encoder: nn.Module, change: Any, assert_same: Any):
    graphs, batch = CudaGraphs(encoder), images(1, 3, 32, 32)
    graphs(batch)
    change(encoder)
    assert_same(graphs(batch), encoder(batch))
    assert Tape.recorded == 2


@pytest.mark.parametrize(
    "other",
    [
        images(2, 3, 32, 32),
        images(1, 3, 32, 64),
        images(1, 3, 32, 32).contiguous(memory_format=torch.channels_last),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
    ],
    ids=["batch", "size", "memory format", "dtype"],
)
def test_every_kind_of_batch_has_its_graph(encoder: nn.Module, other: Tensor, assert_same: Any):
    graphs = CudaGraphs(encoder)
    for batch in (images(1, 3, 32, 32), other) * 2:
        assert_same(graphs(batch), encoder(batch))
    assert Tape.recorded == 2


def test_the_graph_used_longest_ago_is_forgotten(encoder: nn.Module):
    graphs = CudaGraphs(encoder)
    kinds = [images(1, 3, 8, 8 * width) for width in range(1, MOST_GRAPHS + 2)]
    for batch in (*kinds[:-1], kinds[0], kinds[-1]):  # the last one takes the place of the second
        graphs(batch)
    assert Tape.recorded == len(kinds)
    graphs(kinds[0])
    assert Tape.recorded == len(kinds)
    graphs(kinds[1])
    assert Tape.recorded == len(kinds) + 1


def test_a_gradient_is_never_lost(encoder: nn.Module):
    graphs, batch = CudaGraphs(encoder), images(1, 3, 32, 32).requires_grad_()
    graphs(batch).sum().backward()
    assert batch.grad is not None
    next(encoder.parameters()).requires_grad_()
    assert graphs(batch.detach()).requires_grad
    assert Tape.recorded == 0


def test_autocast_of_weights_that_need_a_gradient_is_not_recorded(encoder: nn.Module, monkeypatch: pytest.MonkeyPatch):
    """It keeps their copies in another dtype, which no change of the weights reaches."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    graphs, batch = CudaGraphs(encoder), images(1, 3, 32, 32)
    with torch.no_grad():
        graphs(batch)
        assert Tape.recorded == 1
        next(encoder.parameters()).requires_grad_()
        calls: list[int] = []
        encoder.register_forward_hook(lambda *called: calls.append(1))
        graphs(batch)  # the module itself, which a replay would not call
    assert (calls, Tape.recorded) == ([1], 1)


def test_transforms_and_modes_see_the_module(encoder: nn.Module, assert_same: Any):
    graphs, batch = CudaGraphs(encoder), images(2, 3, 32, 32)
    expected = encoder(batch)
    with Tape() as seen:
        graphs(batch)
    assert len(seen.operations) > 10
    assert torch.func.grad(lambda image: graphs(image).square().sum())(batch).shape == batch.shape
    assert Tape.recorded == 1  # by the test
    assert graphs(batch[:0]).shape == (0, *expected.shape[1:])
    assert Tape.recorded == 1


def test_a_wrong_batch_is_refused_as_by_the_module(encoder: nn.Module):
    graphs = CudaGraphs(encoder)
    with pytest.raises(ValueError, match="8"):
        graphs(images(1, 3, 30, 30))
    assert not graphs._graphs


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_graphs_of_its_own(make_model, copied: Any, assert_same: Any):
    model = make_model().eval().requires_grad_(False)
    model._graphs = {part: CudaGraphs(part) for part in (model.encoder, model.decoder)}
    batch = images(1, 3, 32, 32)
    expected = model(batch).sample
    other = copied(model)
    assert set(other._graphs) == {other.encoder, other.decoder}
    for parameter in other.parameters():
        parameter.zero_()
    assert_same(model(batch).sample, expected)
    assert other(batch).sample.abs().max() == 0
    assert Tape.recorded == 4
