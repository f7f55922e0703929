"""Is L1 the mean absolute difference?"""

import pytest
import torch

from litevae.losses import l1_loss


def test_equals_torch_in_float64() -> None:
    x, y = torch.randn(2, 2, 3, 5, 7, dtype=torch.float64).unbind()
    torch.testing.assert_close(l1_loss(x, y), torch.nn.functional.l1_loss(x, y), rtol=1e-14, atol=0)


def test_half_precision_is_averaged_in_float32() -> None:
    """A bfloat16 sum of 2^16 equal terms would stop growing at 256 of them."""
    x = torch.full((1, 1, 256, 256), 0.5, dtype=torch.bfloat16)
    loss = l1_loss(x, torch.zeros_like(x))
    assert loss.dtype == torch.float32
    assert loss.item() == 0.5


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image's shape \(2, 3, 8, 8\), got \(2, 1, 8, 8\)"):
        l1_loss(torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8))
