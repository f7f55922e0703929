"""Does the counter of live tensors count what it says?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from litevae.cost import peak_tensor_bytes

KILO = 1000 * 4  # bytes of 1000 float32


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_peak_tensor_bytes_follows_lifetimes(device: str):
    x = torch.zeros(1000, device=device)

    def all_kept(x: Tensor) -> Tensor:
        y = x + 1
        z = y * 2
        return z - y  # x, y, z and the result

    def chained(x: Tensor) -> Tensor:
        x = x + 1
        x = x * 2  # the caller's x, the last one and the new one
        return x - 3

    assert peak_tensor_bytes(all_kept, x) == 4 * KILO
    assert peak_tensor_bytes(chained, x) == 3 * KILO


def test_peak_tensor_bytes_counts_a_storage_once_and_what_is_held():
    x = torch.zeros(1000)

    def views(x: Tensor) -> Tensor:
        columns = x.view(10, 100).t()[3:]  # 970 elements
        return columns.clone(memory_format=torch.contiguous_format).flatten().relu_()

    held = torch.zeros(500), torch.zeros(7)
    assert peak_tensor_bytes(views, x) == KILO + 970 * 4
    assert peak_tensor_bytes(views, x, held=[*held, x[:10]]) == KILO + 970 * 4 + 507 * 4


def test_peak_tensor_bytes_sees_what_autograd_saves():
    x = torch.zeros(1000, requires_grad=True)
    kept_by_autograd = peak_tensor_bytes(lambda x: x.exp().exp().exp(), x)
    with torch.inference_mode():
        assert peak_tensor_bytes(lambda x: x.exp().exp().exp(), x) == 3 * KILO
    assert kept_by_autograd == 4 * KILO
