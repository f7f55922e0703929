"""Is the share of a copy's bandwidth the one that the bytes and the times say?"""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import bandwidth
from benchmarks.harness.directions import turns_of
from benchmarks.harness.measure import Timing


def test_speed_of_known_times():
    copied = torch.empty(1000, dtype=torch.bfloat16)  # its copy moves 4000 bytes
    timing = Timing([4e-6, 5e-6, 6e-6], {"copy": [2e-6, 2e-6, 2e-6]}, 1)
    speed = bandwidth.speed(timing, 6000, copied)
    assert speed["time_ms"] == pytest.approx(5e-3)
    assert speed["iqr_ms"] == pytest.approx(1e-3)
    assert speed["gb_per_s"] == pytest.approx(1.2)
    assert speed["share_of_copy"] == pytest.approx(100 * (6000 / 5e-6) / (4000 / 2e-6))


def test_a_copy_has_the_share_of_a_hundred():
    copied = torch.empty(7, 3)
    timing = Timing([2.0, 2.0], {"copy": [2.0, 2.0]}, 1)
    assert bandwidth.speed(timing, 2 * bandwidth.bytes_of(copied), copied)["share_of_copy"] == 100


def test_a_copy_keeps_values_dtype_and_memory_format(monkeypatch: pytest.MonkeyPatch):
    x = torch.randn(2, 3, 4, 5).to(torch.bfloat16, memory_format=torch.channels_last)
    copied = bandwidth.copy(x)
    assert copied.data_ptr() != x.data_ptr()
    assert copied.stride() == x.stride()
    torch.testing.assert_close(copied, x, rtol=0, atol=0)


def test_steps_that_share_turns_never_get_the_same_tensor_twice_running(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    monkeypatch.setattr(bandwidth, "copy", lambda tensor: seen.append(int(tensor)))
    tensors = [torch.tensor(index) for index in range(3)]
    turns = turns_of(tensors)
    first, second = (bandwidth.copy_step(tensors, turns) for _ in range(2))
    for _ in range(3):
        first()
        second()
    assert seen == [0, 1, 2, 0, 1, 2]
