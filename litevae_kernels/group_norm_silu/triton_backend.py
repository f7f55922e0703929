"""The Triton backend of GroupNorm+SiLU: sizes of tiles, numbers of programs, and the launches.

image -> DWT -> feature extraction [GN] -> aggregation [GN] -> latent -> decoder [GN] -> losses

Groups that fit the registers of one program take one launch and one read of the data. Larger ones take three launches:
partial results of every (sample, channel, part of the pixels), their combination, and the application, which reads the
data again. No atomics: every partial result has one writer.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from litevae_kernels.formats import memory_format_of
from litevae_kernels.group_norm_silu import triton_backward, triton_forward
from litevae_kernels.group_norm_silu.results import empty_gradients, empty_results

WHOLE_GROUPS_ELEMENTS = 16384  # at most, in the registers of a program for whole groups (float64: a quarter)
TILE_ELEMENTS = 2048  # of a program for a part of the pixels (float64: half)
COMBINED_CHANNELS = 16  # of a program that sums the gradients of weight and bias
ENOUGH_PROGRAMS = 1024  # about eight for each multiprocessor of a large GPU; more take longer to combine


class Sizes(NamedTuple):
    """The sizes of concat(x, skip), in the order of the kernels' parameters."""

    x_channels: int
    skip_channels: int
    pixels: int
    num_groups: int
    group_size: int


class Parts(NamedTuple):
    """Programs for one of `splits` parts of the pixels each: `iterations` tiles [BLOCK_C, BLOCK_P] of x or of skip."""

    programs: int
    splits: int
    iterations: int
    tile: dict[str, Any]


@functools.lru_cache(maxsize=1024)
def whole_groups(
    sizes: Sizes, batch: int, channels_last: bool, dtype: torch.dtype, backward: bool
) -> tuple[int, dict[str, Any]] | None:
    """The launch without partial results, or None where the groups are too large for it.

    The number of programs, for all groups of CHANNELS channels of one sample each, and their tile [BLOCK_C, BLOCK_P].
    """
    most_elements = WHOLE_GROUPS_ELEMENTS // (4 if dtype == torch.float64 else 1)
    if backward and sizes.skip_channels > 0:
        most_elements //= 2  # pointers to five tensors instead of three
    groups = 1
    if channels_last:  # enough for accesses of at least 32 bytes, aligned to 16
        group_bytes = sizes.group_size * dtype.itemsize
        step = 16 // math.gcd(16, group_bytes)
        groups = min(step * triton.cdiv(32, step * group_bytes), sizes.num_groups)
    block_c, block_p = triton.next_power_of_2(groups * sizes.group_size), triton.next_power_of_2(sizes.pixels)
    elements = block_c * block_p
    if elements > most_elements or (groups > 1 and block_c > 64):
        return None
    tile = {"BLOCK_C": block_c, "BLOCK_P": block_p, "CHANNELS": groups * sizes.group_size, "ONE_GROUP": groups == 1}
    tile["num_warps"] = min(max(elements // 512, 1), 16)
    return batch * triton.cdiv(sizes.num_groups, groups), tile


@functools.lru_cache(maxsize=1024)
def parts(sizes: Sizes, batch: int, channels_last: bool, dtype: torch.dtype) -> Parts:
    """The launches with partial results, with enough programs to fill a GPU even for a batch of 1."""
    elements = TILE_ELEMENTS // (2 if dtype == torch.float64 else 1)
    most_channels = triton.next_power_of_2(max(sizes.x_channels, sizes.skip_channels))
    if channels_last:
        common = math.gcd(sizes.x_channels, sizes.skip_channels)
        aligned = common & -common  # the largest power of two that divides both
        block_c = min(64, aligned if aligned >= 16 else most_channels)
        block_p = min(elements // block_c, triton.next_power_of_2(sizes.pixels))
    else:
        block_p = min(elements, triton.next_power_of_2(sizes.pixels))
        block_c = min(elements // block_p, most_channels)
    rows = batch * (triton.cdiv(sizes.x_channels, block_c) + triton.cdiv(sizes.skip_channels, block_c))
    tiles = triton.cdiv(sizes.pixels, block_p)
    iterations = triton.cdiv(tiles, triton.cdiv(ENOUGH_PROGRAMS, rows))
    splits = triton.cdiv(tiles, iterations)
    return Parts(rows * splits, splits, iterations, {"BLOCK_C": block_c, "BLOCK_P": block_p})


def group_norm_silu(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    skip: Tensor | None,
    keeps_statistics: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu`."""
    output, mean, rstd = empty_results(x, num_groups, skip)
    if output.numel() == 0:
        return output, mean.fill_(0), rstd.fill_(eps**-0.5)
    sizes, _, flags = _describe(x, num_groups, weight, bias, skip)
    x, weight, bias, skip = _dense(x, weight, bias, skip)
    batch, channels = output.shape[:2]
    channels_last, arithmetic = flags["CHANNELS_LAST"], flags["ARITHMETIC"]
    with torch.cuda.device_of(x):
        whole = whole_groups(sizes, batch, channels_last, x.dtype, backward=False)
        if whole is not None:
            programs, tile = whole
            triton_forward.group_norm_silu_fwd_kernel[(programs,)](
                x, skip, weight, bias, output, mean, rstd, *sizes, EPS=eps, **tile, **flags
            )
            return output, mean, rstd
        part = parts(sizes, batch, channels_last, x.dtype)
        run = sizes.group_size * part.splits
        partials = mean.new_empty(2 * batch * channels * part.splits)
        triton_forward.group_norm_silu_fwd_partials_kernel[(part.programs,)](
            x, skip, partials, *sizes[:3], part.splits, part.iterations, **part.tile,
            HAS_SKIP=flags["HAS_SKIP"], CHANNELS_LAST=channels_last, ARITHMETIC=arithmetic,
        )  # fmt: skip
        triton_forward.group_norm_silu_fwd_combine_kernel[(batch * num_groups,)](
            partials, mean, rstd, sizes.pixels, sizes.group_size, part.splits, part.iterations * part.tile["BLOCK_P"],
            EPS=eps, BLOCK=_combined_at_once(run), ARITHMETIC=arithmetic, num_warps=1,
        )  # fmt: skip
        triton_forward.group_norm_silu_fwd_apply_kernel[(part.programs,)](
            x, skip, weight, bias, mean, rstd, output, *sizes, part.splits, part.iterations, **part.tile, **flags
        )  # fmt: skip
    return output, mean, rstd


def group_norm_silu_backward(
    grad: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `reference.group_norm_silu_backward`."""
    sizes, memory_format, flags = _describe(x, num_groups, weight, bias, skip)
    gradients = empty_gradients(x, weight, bias, skip)
    x_grad, weight_grad, bias_grad, skip_grad = gradients
    if grad.numel() == 0:
        weight_grad.zero_()
        bias_grad.zero_()
        return gradients
    x, weight, bias, skip = _dense(x, weight, bias, skip)
    grad, mean, rstd = grad.contiguous(memory_format=memory_format), mean.contiguous(), rstd.contiguous()
    batch, channels, channels_last = x.shape[0], grad.shape[1], flags["CHANNELS_LAST"]
    inputs = (grad, x, skip, weight, bias, mean, rstd)
    with torch.cuda.device_of(x):
        whole = whole_groups(sizes, batch, channels_last, x.dtype, backward=True)
        part = parts(sizes, batch, channels_last, x.dtype)
        splits, batch_groups = (part.splits, batch * num_groups) if whole is None else (1, 0)
        partials, coefficients = mean.new_empty(2 * batch * channels * splits), mean.new_empty(2 * batch_groups)
        if whole is not None:
            programs, tile = whole
            outputs = x_grad, skip_grad, partials
            triton_backward.group_norm_silu_bwd_kernel[(programs,)](*inputs, *outputs, *sizes, **tile, **flags)
        else:
            triton_backward.group_norm_silu_bwd_partials_kernel[(part.programs,)](
                *inputs, partials, *sizes, splits, part.iterations, **part.tile, **flags
            )
        has_parameters = flags["HAS_WEIGHT"] or flags["HAS_BIAS"]
        programs = batch_groups + (triton.cdiv(channels, COMBINED_CHANNELS) if has_parameters else 0)
        if programs > 0:
            triton_backward.group_norm_silu_bwd_combine_kernel[(programs,)](
                partials, weight, coefficients, weight_grad, bias_grad, batch, batch_groups, channels, *sizes[2:],
                splits, CHANNELS=COMBINED_CHANNELS, BLOCK=_combined_at_once(max(sizes.group_size, batch) * splits),
                HAS_WEIGHT=flags["HAS_WEIGHT"], HAS_BIAS=flags["HAS_BIAS"], ARITHMETIC=flags["ARITHMETIC"], num_warps=1,
            )  # fmt: skip
        if whole is None:
            triton_backward.group_norm_silu_bwd_apply_kernel[(part.programs,)](
                *inputs, coefficients, x_grad, skip_grad, *sizes, splits, part.iterations, **part.tile, **flags
            )
    return gradients


def _describe(
    x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, skip: Tensor | None
) -> tuple[Sizes, torch.memory_format, dict[str, Any]]:
    x_channels, skip_channels = x.shape[1], 0 if skip is None else skip.shape[1]
    group_size = (x_channels + skip_channels) // num_groups
    memory_format = memory_format_of(x)
    flags = {
        "HAS_SKIP": skip is not None,
        "HAS_WEIGHT": weight is not None,
        "HAS_BIAS": bias is not None,
        "CHANNELS_LAST": memory_format == torch.channels_last,
        "ARITHMETIC": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }
    return Sizes(x_channels, skip_channels, x.shape[2] * x.shape[3], num_groups, group_size), memory_format, flags


def _dense(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, skip: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs, dense in x's memory format; x itself for an absent one, which the kernels do not read."""
    memory_format = memory_format_of(x)
    x = x.contiguous(memory_format=memory_format)
    return (
        x,
        x if weight is None else weight.contiguous(),
        x if bias is None else bias.contiguous(),
        x if skip is None else skip.contiguous(memory_format=memory_format),
    )


def _combined_at_once(run: int) -> int:
    """The number of partial results that a combining program reads at once: two values, so that few kernels compile."""
    return 64 if run <= 64 else 512
