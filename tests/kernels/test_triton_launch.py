"""Does a kept launch give a kernel what Triton's own gives it, and does Triton launch what it was not kept for?"""

import json
import sys
from pathlib import Path

import pytest

from .. import children

pytest.importorskip("triton", reason="the package triton is not installed")

PROGRAM = """
import os
os.environ["TRITON_INTERPRET"] = "0"
import importlib, json
import torch
from benchmarks.harness.recording_driver import RecordingDriver
backend = importlib.import_module("litevae_kernels.group_norm_silu.triton_backend")
launch = importlib.import_module("litevae_kernels.triton_launch").Launch
driver = RecordingDriver()
own, kernels = [], set()
launches = launch._launch
launch._launch = lambda self, tensors: own.append(self) or launches(self, tensors)
memory = torch.empty(2 * 96 * 64 * 64 + 1)
weight, mean = torch.ones(96), torch.ones(2, 32)

def given(value, known):
    # Of pointers only those of x, weight and mean: the others are of fresh memory.
    value = value.data_ptr() if isinstance(value, torch.Tensor) else value
    return "fresh" if isinstance(value, int) and value > 2**20 and value not in known else value

def run(offset, backward, keeps=True):
    x = memory[offset : memory.numel() - 1 + offset].view(2, 64, 64, 96).permute(0, 3, 1, 2)
    before = len(own), len(kernels)
    driver.launches.clear()
    with driver.active():
        if backward:
            backend.group_norm_silu_backward(x, x, 32, weight, None, mean, mean, None)
        else:
            backend.group_norm_silu(x, 32, weight, None, 1e-6, None, keeps)
    kernels.update(one.compiled for one in driver.launches)
    known = {x.data_ptr(), weight.data_ptr(), mean.data_ptr()}
    arguments = [[given(value, known) for value in one.arguments.values()] for one in driver.launches]
    return {"names": [one.kernel for one in driver.launches], "grids": [one.grid for one in driver.launches],
            "own": len(own) - before[0], "new_kernels": len(kernels) - before[1],
            "given": json.loads(json.dumps(arguments, default=str))}

print(json.dumps([run(0, False), run(0, False), run(1, False), run(0, False), run(0, True), run(0, True),
                  run(0, False, False), run(0, False, False)]))
"""


def test_the_second_launch_gives_what_the_first_gave() -> None:
    """The signature of Triton's `compiled[grid](...)`: one that changes makes the arguments differ."""
    result = children.run([sys.executable, "-c", PROGRAM], timeout=120, cwd=Path(__file__).parents[2])
    assert result.returncode == 0, result.stderr
    first, second, misaligned, again, backward, kept_backward, inference, kept_inference = json.loads(result.stdout)
    assert [name.removeprefix("group_norm_silu_") for name in first["names"]] == [
        "fwd_partials_kernel",
        "fwd_apply_kernel",
    ]
    assert (first["own"], first["new_kernels"]) == (2, 2)
    assert (second["own"], second["new_kernels"]) == (0, 0)
    assert second["given"] == first["given"] == again["given"]
    assert second["grids"] == first["grids"]
    assert (misaligned["own"], misaligned["new_kernels"]) == (2, 2)  # other machine code
    assert again["own"] == 0
    assert (backward["own"], kept_backward["own"], len(backward["names"])) == (3, 0, 3)
    assert kept_backward["given"] == backward["given"]
    assert kept_inference["given"] == inference["given"]
    assert inference["new_kernels"] == 1  # only the second kernel writes the statistics
