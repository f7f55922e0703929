"""Is a weight's spectral norm PyTorch's, step by step?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from litevae.models.discriminators.spectral_norm import spectral_norm

DTYPE = torch.float64


def pair(size: int, memory_format: torch.memory_format) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Ours and PyTorch's, of the same weight and first estimates."""
    convolutions = []
    for normalised in (spectral_norm, parametrizations.spectral_norm):
        torch.manual_seed(0)
        convolution = nn.Conv2d(5, 7, size, dtype=DTYPE).to(memory_format=memory_format)  # type: ignore[call-overload]
        convolutions.append(normalised(convolution).to(memory_format=memory_format))
    return convolutions[0], convolutions[1]


def original(convolution: Any) -> Tensor:
    """The weight before it is normalised, which is the parameter."""
    weight: Tensor = convolution.parametrizations.weight.original
    return weight


def gradient(convolution: nn.Conv2d) -> Tensor:
    """Of two passes at once, as a discriminator's real and fake images may have them."""
    torch.manual_seed(1)
    image = torch.randn(2, 5, 8, 8, dtype=DTYPE)
    loss = (convolution(image) ** 3).sum() + convolution(-image).sin().sum()
    (result,) = torch.autograd.grad(loss, original(convolution))
    return result


def assert_same(first: object, second: object) -> None:
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_weights_estimates_and_gradients_are_pytorch_s(size: int, memory_format: torch.memory_format) -> None:
    ours, theirs = pair(size, memory_format)
    assert_same(ours.state_dict(), theirs.state_dict())
    for _ in range(3):
        assert_same(gradient(ours), gradient(theirs))
        assert_same(ours.state_dict(), theirs.state_dict())
    for convolution in (ours, theirs):
        convolution.eval()
    assert_same(gradient(ours), gradient(theirs))
    assert_same(ours.weight, theirs.weight)
    assert_same(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("size", [1, 3])
def test_penalty_of_an_image_s_gradient_has_pytorch_s(size: int) -> None:
    """R1's: a second derivative, by the image and then by the weight."""
    gradients = []
    for convolution in pair(size, torch.channels_last):
        image = torch.randn(2, 5, 8, 8, dtype=DTYPE, generator=torch.Generator().manual_seed(1), requires_grad=True)
        (image_logit,) = torch.autograd.grad((convolution(image) ** 3).sum(), image, create_graph=True)
        gradients.append(torch.autograd.grad(image_logit.square().sum(), original(convolution))[0])
    assert_same(*gradients)


def test_estimates_may_change_before_the_backward_pass() -> None:
    """As when DistributedDataParallel copies process 0's to all at a forward pass."""
    ours, theirs = pair(1, torch.channels_last)
    gradients = []
    for convolution in (ours, theirs):
        convolution.eval()
        loss = (convolution(torch.ones(1, 5, 4, 4, dtype=DTYPE)) ** 3).sum()
        for buffer in convolution.buffers():
            buffer.mul_(2)
        gradients.append(torch.autograd.grad(loss, original(convolution))[0])
    assert_same(*gradients)


def test_state_is_exchanged_with_pytorch_s() -> None:
    ours, theirs = pair(3, torch.channels_last)
    for _ in range(4):
        gradient(theirs)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours.eval().weight, theirs.eval().weight)


def test_gradient_by_differences() -> None:
    ours, _ = pair(3, torch.channels_last)
    module = ours.eval().parametrizations.weight[0]  # type: ignore[union-attr, index]
    weight = torch.randn(7, 5, 3, 3, dtype=DTYPE, requires_grad=True)
    assert torch.autograd.gradcheck(module, weight)  # type: ignore[arg-type]
