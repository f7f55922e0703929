"""Does an exported file give what the model gives, in a process where this package cannot be imported?"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litevae.exporting.graphs import Graph
from litevae_kernels.precision import tf32

SCRIPT = Path(__file__).with_name("run_alone.py")
FLOAT32_BOUND = 1e-4


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    path: the file. error: the largest |file - model| / max |model| over its outputs and `shapes`, where the model
    computes in float32. own_error: the same of the exported model in PyTorch, in the file's dtype.
    """

    path: Path
    shapes: tuple[tuple[int, ...], ...]
    error: float
    own_error: float
    description: dict[str, Any]

    def __str__(self) -> str:
        tried = " and ".join("x".join(map(str, shape)) for shape in self.shapes)
        size = self.path.stat().st_size / 1e6
        return f"{self.path}: {size:.1f} MB; largest relative error {self.error:.1e} without litevae, at {tried}"

    @property
    def description_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")


def run_alone(path: Path, to: str, inputs: list[Tensor], dtype: torch.dtype, device: str) -> list[tuple[Tensor, ...]]:
    """The outputs, in float32, of the file for each of the inputs.

    Raises:
        RuntimeError: the process failed; with the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, gotten = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(given, allow_pickle=False, **{str(index): x.numpy() for index, x in enumerate(inputs)})
        words = [to, str(path.absolute()), str(given), str(gotten), str(dtype).removeprefix("torch."), device]
        done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, cwd=folder)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise RuntimeError(f"the file must run without litevae, got: {last}")
        with np.load(gotten) as arrays:
            names = [[name for name in arrays.files if name.startswith(f"{i}.")] for i in range(len(inputs))]
            return [tuple(torch.from_numpy(arrays[name]) for name in group) for group in names]


def relative_error(results: list[tuple[Tensor, ...]], expected: list[tuple[Tensor, ...]]) -> float:
    """The largest |result - expected| / max |expected| of all outputs; infinite where a result is not finite."""
    worst = 0.0
    for one, other in zip(results, expected, strict=True):
        for result, right in zip(one, other, strict=True):
            difference = (result.double() - right.double()).abs().max().item()
            scale = right.double().abs().max().item()
            error = difference / scale if scale > 0 else difference
            worst = max(worst, error if error == error else float("inf"))
    return worst


def bound(dtype: torch.dtype, own_error: float) -> float:
    """What the error may be: 1e-4 in float32; twice PyTorch's own in half precision, and some roundings."""
    return FLOAT32_BOUND if dtype == torch.float32 else 2 * own_error + 8 * torch.finfo(dtype).eps


@torch.no_grad()
def outputs(graph: Graph, inputs: list[Tensor], dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    """What the graph gives in PyTorch, in float32 on the CPU."""
    device = next(graph.parameters(), torch.empty(0)).device
    with tf32(False):
        return [tuple(result.float().cpu() for result in graph(x.to(device, dtype))) for x in inputs]
