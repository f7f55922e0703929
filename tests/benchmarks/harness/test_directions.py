"""Do the three directions run what they say, as often as asked?"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from benchmarks.harness import directions
from benchmarks.harness.directions import BACKWARD, BOTH, FORWARD, Sample

SAMPLES = [
    Sample([torch.tensor([2.0 * n]), torch.tensor([3.0]), torch.tensor([5.0])], [torch.tensor([10.0])]) for n in (1, 2)
]


def product(x: Tensor, y: Tensor, unused: Tensor) -> dict[str, list[Tensor]]:
    return {"product": [x * y]}


def values(tensors: list[Tensor]) -> list[float]:
    return [tensor.item() for tensor in tensors]


@torch.no_grad()
def test_results():
    assert values(directions.result(FORWARD, product, SAMPLES[0])) == [6.0]
    assert values(directions.result(BACKWARD, product, SAMPLES[0])) == [30.0, 20.0]  # none of the unused one
    assert values(directions.result(BOTH, product, SAMPLES[0])) == [6.0, 30.0, 20.0]
    assert not any(tensor.requires_grad for tensor in directions.result(BOTH, product, SAMPLES[0]))


@pytest.mark.parametrize(
    ("direction", "calls_ahead", "calls_a_step"), [(FORWARD, 0, 1), (BACKWARD, 2, 0), (BOTH, 0, 1)]
)
@torch.no_grad()
def test_what_is_inside_a_step(direction: str, calls_ahead: int, calls_a_step: int):
    seen: list[tuple[float, bool]] = []

    def function(x: Tensor, y: Tensor, unused: Tensor) -> Tensor:
        seen.append((x.item(), x.requires_grad))
        return x * y

    step = directions.step(direction, function, SAMPLES, directions.turns_of(SAMPLES))
    assert len(seen) == calls_ahead
    for _ in range(4):  # twice through the samples: a graph can be differentiated again
        step()
    assert len(seen) == calls_ahead + 4 * calls_a_step
    assert [x for x, _ in seen] == list(itertools.islice(itertools.cycle([2.0, 4.0]), len(seen)))
    assert {requires_grad for _, requires_grad in seen} == {direction != FORWARD}


def test_labels():
    assert [directions.labelled("x", direction) for direction in (FORWARD, BACKWARD, BOTH)] == [
        "x",
        "x, backward",
        "x, forward+backward",
    ]


def test_a_new_case_is_compiled_anew(monkeypatch: pytest.MonkeyPatch):
    resets: list[None] = []
    options: list[dict[str, object]] = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(None))
    monkeypatch.setattr(torch, "compile", lambda function, **given: options.append(given) or (lambda: function))
    directions.compiled.cache_clear()
    first = directions.compiled(product, "float32")
    assert directions.compiled(product, "float32") is first
    assert directions.compiled(product, "bfloat16") is not first
    assert len(resets) == 2
    assert options == [{"dynamic": False}] * 2
    directions.compiled.cache_clear()
