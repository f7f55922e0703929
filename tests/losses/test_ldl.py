"""Is LDL the formula of Liang et al.: computed again with NumPy and SciPy, and a constant weight?"""

import numpy as np
import pytest
import torch
from scipy.ndimage import generic_filter

from litevae.losses.ldl import ldl_loss


def pictures(dtype: torch.dtype = torch.float64, size: tuple[int, int] = (12, 17)) -> list[torch.Tensor]:
    """Reconstruction, averaged model's reconstruction, image. One of two images is much noisier."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *size, dtype=torch.float64, generator=generator) * 2 - 1
    noise = torch.tensor([0.05, 0.5], dtype=torch.float64).view(2, 1, 1, 1)
    worse, ema = (image + noise * torch.randn(image.shape, dtype=torch.float64, generator=generator) for _ in range(2))
    return [x.to(dtype) for x in (worse, ema, image)]


def by_scipy(reconstruction: np.ndarray, ema: np.ndarray, image: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss, and the weight of every pixel [B, H, W]."""
    weights = []
    for one, averaged, original in zip(reconstruction, ema, image, strict=True):
        residual, ema_residual = (np.abs(original - x).sum(0) for x in (one, averaged))
        local = generic_filter(residual, lambda window: np.var(window, ddof=1), size=7, mode="mirror")
        weight = np.var(residual, ddof=1) ** (1 / 5) * local
        weight[residual < ema_residual] = 0
        weights.append(weight)
    weight = np.stack(weights)
    weighted = np.abs(weight[:, None] * reconstruction - weight[:, None] * image)
    return float(weighted.mean()), weight


def test_equals_scipy() -> None:
    expected, weight = by_scipy(*(x.numpy() for x in pictures()))
    assert 0.2 < (weight > 0).mean() < 0.8
    assert ldl_loss(*pictures()).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_flows_through_the_reconstruction_only() -> None:
    """The weight is a constant, so the gradient is the weight times the sign of the error."""
    leaves = [x.requires_grad_() for x in pictures()]
    reconstruction, ema, image = leaves
    ldl_loss(*leaves).backward()
    assert ema.grad is None
    assert image.grad is None
    _, weight = by_scipy(*(x.detach().numpy() for x in leaves))
    expected = weight[:, None] * np.sign((reconstruction - image).detach().numpy()) / image.numel()
    assert reconstruction.grad is not None
    np.testing.assert_allclose(reconstruction.grad.numpy(), expected, rtol=1e-9, atol=1e-18)


def test_zero_where_the_averaged_model_is_worse() -> None:
    reconstruction, _, image = pictures()
    worse_left = image + (reconstruction - image) * torch.where(torch.arange(17) < 8, 2.0, 0.5)
    reconstruction.requires_grad_()
    ldl_loss(reconstruction, worse_left, image).backward()
    assert reconstruction.grad is not None
    assert (reconstruction.grad[..., :8] == 0).all()
    assert (reconstruction.grad[..., 8:] != 0).all()


def test_a_perfect_reconstruction_has_no_loss_and_a_zero_gradient() -> None:
    _, ema, image = pictures(torch.float32)
    reconstruction = image.clone().requires_grad_()
    loss = ldl_loss(reconstruction, ema, image)
    loss.backward()
    assert loss.item() == 0
    assert reconstruction.grad is not None
    assert (reconstruction.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    rounded = pictures(dtype)
    loss = ldl_loss(*rounded)
    assert loss.dtype == torch.float32
    expected, _ = by_scipy(*(x.double().numpy() for x in rounded))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, 3, 8, 9), (1, 3, 8, 8), (1, 3, 8, 8)], "reconstruction must have the image's shape (1, 3, 8, 8), got"),
        (
            [(1, 3, 8, 8), (1, 3, 8, 9), (1, 3, 8, 8)],
            "ema_reconstruction must have the image's shape (1, 3, 8, 8), got",
        ),
        (
            [(1, 3, 3, 8)] * 3,
            "image must be larger than 3 pixels a side for 7x7 windows with reflected borders, got 3x8",
        ),
    ],
)
def test_wrong_shapes(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError) as error:
        ldl_loss(*(torch.zeros(shape) for shape in shapes))
    assert str(error.value).startswith(message)
