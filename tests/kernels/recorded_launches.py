"""What does LiteVAE-B launch on a GPU? Recorded on a machine without one.

python -m tests.kernels.recorded_launches       JSON: launches, kernels and programs of encodes and updates

The model runs on the device "meta", with what convolutions do on CUDA: answer in channels_last.
"""

import importlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from benchmarks.harness.recording_driver import RecordingDriver
from litevae import LiteVAE
from litevae_kernels import dispatch
from litevae_kernels.backends import MODULES

CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SIDE = 256
BATCHES = (1, 3, 8, 31, 32)
EXTREMES = ((1, 8, 8), (1, 8, 4096), (1, 4096, 4096), (1000, 256, 256))  # batch, height, width


class AsOnCuda(TorchDispatchMode):
    """Operators of meta tensors as of CUDA's: a backend computes ours, and convolutions answer in channels_last."""

    def __init__(self, backend: str = "triton", inference: bool = False) -> None:
        super().__init__()
        self.backend, self.inference = MODULES[backend], inference

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if operator in dispatch._implementations:
            room, *functions = dispatch._implementations[operator][:3]  # for any use, and for inference if it differs
            module = importlib.import_module(f"litevae_kernels.{room}.{self.backend}")
            return functions[-1 if self.inference else 0](module, *arguments[:-1])
        result = operator(*arguments, **(options or {}))
        return tree_map_only(Tensor, channels_last, result) if operator in CONVOLUTIONS else result


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def encoder(dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        return LiteVAE.from_preset("B").encoder.to(dtype)


def image(batch: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty((batch, 3, height, width), dtype=dtype, device="meta")


def encode(model: nn.Module, pixels: Tensor) -> None:
    with AsOnCuda(inference=True), torch.no_grad():
        model(pixels)


def update(model: nn.Module, pixels: Tensor, backend: str = "triton") -> None:
    with AsOnCuda(backend):
        model(pixels).sum().backward()


def counts(driver: RecordingDriver, runs: Sequence[Callable[[], None]]) -> dict[str, Any]:
    """Launches of each run; different kernels up to its end; the smallest and largest grid and the streams of all."""
    launches, kernels = [], []
    driver.launches.clear()
    for run in runs:
        before = len(driver.launches)
        run()
        launches.append(len(driver.launches) - before)
        kernels.append(len({id(launch.compiled) for launch in driver.launches}))
    programs = [side for launch in driver.launches for side in launch.grid]
    streams = sorted({launch.stream for launch in driver.launches})
    return {"launches": launches, "kernels": kernels, "programs": [min(programs), max(programs)], "streams": streams}


def report() -> dict[str, dict[str, Any]]:
    driver = RecordingDriver()
    found: dict[str, dict[str, Any]] = {"encode": {}, "update": {}, "extremes": {}}
    with driver.active():
        for name, dtype in DTYPES.items():
            model = encoder(dtype)

            def run(function: Callable[..., None], *size: int) -> Callable[[], None]:
                return lambda: function(model, image(*size, dtype))  # noqa: B023

            found["encode"][name] = counts(driver, [run(encode, batch, SIDE, SIDE) for batch in BATCHES])
            found["update"][name] = counts(driver, [run(update, batch, SIDE, SIDE) for batch in BATCHES])
            found["extremes"][name] = counts(driver, [run(update, *size) for size in EXTREMES])
    return found


if __name__ == "__main__":
    print(json.dumps(report()))
