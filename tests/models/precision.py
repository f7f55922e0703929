"""The error of a whole network in half precision, on any CPU.

A result is compared with the float64 result of the same parameters, never with another run in half precision: CPUs
with bfloat16 instructions sum in another order than CPUs that emulate them, and both are right. The scale is what one
rounding of the parameters and the input costs in float64, which no CPU changes.
"""

import copy

import torch
from torch import nn

# Each of some forty layers rounds its result as the parameters were rounded once: sqrt(40) times that error if the
# layers passed all of it on, and normalization does not.
LAYERS = 4.0


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.double() - expected).abs().mean() / expected.abs().mean()).item()


def exact(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double()


def rounded_once(module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """A float64 network whose parameters have been rounded to `dtype`."""
    return copy.deepcopy(module).to(dtype).double()
