"""May a kernel be loaded while a CUDA graph is captured, and is the thread's mode put back?"""

from __future__ import annotations

import ctypes

import pytest
import torch

from litevae_kernels import backends, capture, smc_weight

GLOBAL, RELAXED = 0, 2


class Driver:
    """A driver's function: exchanges the mode of the thread, as CUDA's does."""

    def __init__(self, result: int = 0) -> None:
        self.result, self.mode, self.modes = result, GLOBAL, []

    def cuThreadExchangeStreamCaptureMode(self, pointer: ctypes._Pointer) -> int:
        given = pointer._obj
        self.mode, given.value = given.value, self.mode
        self.modes.append(self.mode)
        return self.result


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(capture, "_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    return driver


def test_triton_runs_in_the_mode_that_allows_loading(capturing: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    if not backends()["triton"].available:
        pytest.skip(backends()["triton"].reason)
    smc_weight(torch.ones(2, 3, 3, 3), torch.ones(3), backend="triton")
    assert capturing.modes == [RELAXED, GLOBAL]
    smc_weight(torch.ones(2, 3, 3, 3), torch.ones(3), backend="reference")
    assert capturing.modes == [RELAXED, GLOBAL]


def test_an_error_within_puts_the_mode_back(capturing: Driver) -> None:
    with pytest.raises(KeyError), capture.allows_loading():
        raise KeyError(capturing.mode)
    assert capturing.modes == [RELAXED, GLOBAL]


def test_a_driver_that_refuses_names_the_way_out(capturing: Driver) -> None:
    capturing.result = 1
    message = "answered 1 to cuThreadExchangeStreamCaptureMode; call the operator once with the same shapes before"
    with pytest.raises(RuntimeError, match=message), capture.allows_loading():
        pass


def test_outside_of_a_capture_the_driver_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "_driver", lambda: pytest.fail("the driver was asked"))
    with capture.allows_loading():
        pass
