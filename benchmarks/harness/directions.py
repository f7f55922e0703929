"""An operator run forward, backward, or both, on inputs that no cache holds.

forward             function(*inputs), without a graph
backward            the gradients of all inputs, again and again from one recorded graph
forward+backward    both, as a training step does: recording and freeing the graph are in it
"""

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.harness import measure

FORWARD, BACKWARD, BOTH = "forward", "backward", "forward+backward"

Function = Callable[..., Any]  # tensors -> a tensor, or a nest of tensors


def labelled(label: str, direction: str) -> str:
    return label if direction == FORWARD else f"{label}, {direction}"


class Sample(NamedTuple):
    """One set of inputs, and the gradients of the outputs that a backward starts from."""

    inputs: Sequence[Tensor]
    grads: Sequence[Tensor] = ()


class Graph(NamedTuple):
    outputs: Sequence[Tensor]
    leaves: Sequence[Tensor]
    grads: Sequence[Tensor]


def record(function: Function, sample: Sample) -> Graph:
    """The graph of function(*inputs), which `backward` differentiates any number of times."""
    leaves = [tensor.detach().requires_grad_() for tensor in sample.inputs]
    with torch.enable_grad():
        return Graph(tree_leaves(function(*leaves)), leaves, sample.grads)


def backward(graph: Graph) -> list[Tensor]:
    """The gradients of the inputs that the outputs depend on."""
    found = torch.autograd.grad(graph.outputs, graph.leaves, graph.grads, retain_graph=True, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def gradients(function: Function, sample: Sample) -> list[Tensor]:
    """The outputs of function(*inputs), then the gradients of the inputs that they depend on."""
    outputs, leaves, grads = record(function, sample)
    found = torch.autograd.grad(outputs, leaves, grads, allow_unused=True)
    return [*(output.detach() for output in outputs), *(gradient for gradient in found if gradient is not None)]


def result(direction: str, function: Function, sample: Sample) -> list[Tensor]:
    """What a step computes, for the comparison before it is timed."""
    if direction == FORWARD:
        return tree_leaves(function(*sample.inputs))
    return backward(record(function, sample)) if direction == BACKWARD else gradients(function, sample)


def turns_of(samples: Sequence[object]) -> Iterator[int]:
    """Whose turn it is: an endless count through `samples`. The steps of one row share it, so that none of them finds
    in a cache what another one has just read."""
    return itertools.cycle(range(len(samples)))


def step(direction: str, function: Function, samples: Sequence[Sample], turns: Iterator[int]) -> measure.Step:
    """What is timed: `function` on the next of `samples` in `direction`. Its results are freed inside."""
    if direction == FORWARD:
        return measure.consuming(lambda turn: function(*samples[turn].inputs), turns)
    if direction == BACKWARD:
        graphs = [record(function, sample) for sample in samples]
        return measure.consuming(lambda turn: backward(graphs[turn]), turns)
    return measure.consuming(lambda turn: gradients(function, samples[turn]), turns)


@functools.lru_cache(maxsize=1)
def compiled(function: Function, case: Hashable) -> Function:
    """`function` by torch.compile, for the shapes and dtypes of one `case`.

    The next case starts anew, since torch.compile answers a second shape with slower code for any shape, and a ninth
    with none. Its backward keeps what it saved, as eager's does, so that one graph can be differentiated again.
    """
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)
