"""What the networks are built from: normalization, the self-modulated convolution, the ResBlock.

image -> DWT -> [feature extraction -> aggregation] -> latent -> [decoder] -> losses

Parameter names are those of diffusers' ResnetBlock2D.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as _modules
from torch.utils.checkpoint import checkpoint

from litevae.config import Normalization
from litevae_kernels import conv2d_add, group_norm_silu, smc_conv2d, smc_weight

EPS = 1e-6  # Stable Diffusion's; the paper gives none


def group_count(channels: int) -> int:
    """The largest divisor of `channels` that is at most 32.

    Stable Diffusion always has 32 groups, but LiteVAE-S has 16 channels, and 48 where a skip joins.

    >>> [group_count(channels) for channels in (16, 48, 96, 128)]
    [16, 24, 32, 32]
    """
    return next(groups for groups in range(min(32, channels), 0, -1) if channels % groups == 0)


class GroupNorm(nn.GroupNorm):
    """GroupNorm with `group_count(channels)` groups, for any size: [B, C, H, W] -> the same.

    `nn.GroupNorm` refuses one value per group, which an 8x8 image at batch size 1 has; here it is normalised to 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(group_count(channels), channels, eps=EPS)

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class GroupNormSiLU(GroupNorm):
    """SiLU(GroupNorm(x)), fused: [B, C, H, W] -> the same. Parameters as `nn.GroupNorm`.

    With a `skip` [B, C2, H, W], of concat(x, skip), which is never made: [B, C1 + C2, H, W].
    """

    def forward(self, input: Tensor, skip: Tensor | None = None) -> Tensor:
        return group_norm_silu(input, self.num_groups, self.weight, self.bias, self.eps, skip=skip)


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last dimension: [..., C] -> the same, with Stable Diffusion's eps.

    In the dtype of its weights, which layerwise casting leaves in float32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class SMConv2d(nn.Module):
    """Self-modulated convolution (section 4.2, Eq. 3): a convolution that normalises its weight, not its input.

    w'[o,i,k] = gain * scales[i] w[o,i,k] / sqrt(sum over i,k of (scales[i] w[o,i,k])^2 + eps), then conv2d, then bias:
    every output channel has a weight of norm `gain`, so activations keep their size without GroupNorm.

    [B, in_channels, H, W] -> [B, out_channels, H', W']. Parameters: weight [out, in, k, k], which starts as
    `nn.Conv2d`'s, scales [in] and gain [] which start at 1, bias [out] at 0. Arithmetic of the weight in float32.

    >>> layer = SMConv2d(8, 16, 3, padding=1)
    >>> layer.folded_weight().flatten(1).norm(dim=1).allclose(torch.ones(16))
    True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.eps = stride, padding, eps
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.scales = nn.Parameter(torch.ones(in_channels))
        self.gain = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return smc_conv2d(
            x, self.weight, self.scales, self.gain, self.bias, stride=self.stride, padding=self.padding, eps=self.eps
        )

    def folded_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """w' [out, in, k, k]: the weight of the `nn.Conv2d` that does the same, in `dtype` (None: the weight's)."""
        return smc_weight(self.weight, self.scales, self.gain, eps=self.eps, dtype=dtype)

    def extra_repr(self) -> str:
        out_channels, in_channels, kernel_size, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel_size={kernel_size}, stride={self.stride}, padding={self.padding}"


def shortcut_of(convolution: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """convolution(concat(x, skip)), 1x1, as the sum of two, unless the layer must be called as it is."""
    if not _is_plain(convolution, kernel_size=1):
        return convolution(torch.cat([x, skip], dim=1))
    layer: Any = convolution
    x_weight, skip_weight = layer.weight.split([x.shape[1], skip.shape[1]], dim=1)
    return conv2d_add(F.conv2d(x, x_weight, layer.bias), skip, skip_weight)  # [B, out_channels, H, W]


def residual_sum(residual: Tensor, convolution: nn.Module, x: Tensor) -> Tensor:
    """residual + convolution(x), 3x3; without gradients by `conv2d_add`, unless the layer must be called as it is."""
    if torch.is_grad_enabled() or not _is_plain(convolution, kernel_size=3):
        return residual + convolution(x)
    layer: Any = convolution
    if isinstance(layer, SMConv2d):  # whose weights may have a higher precision than x
        return conv2d_add(residual, x, layer.folded_weight(x.dtype), layer.bias.to(x.dtype), padding=1)
    return conv2d_add(residual, x, layer.weight, layer.bias, padding=1)


def _is_plain(layer: nn.Module, kernel_size: int) -> bool:
    """Whether `layer` is a convolution as ResBlock makes it: not replaced (LoRA), hooked, or wrapped (accelerate)."""
    padding = kernel_size // 2
    if type(layer) is nn.Conv2d:
        settings = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode
        own = (kernel_size, kernel_size), (1, 1), (padding, padding), (1, 1), 1, "zeros"
        is_own = settings == own
    else:
        is_own = type(layer) is SMConv2d and layer.stride == layer.padding == padding == 1
    return is_own and not is_patched(layer) and layer._compiled_call_impl is None


def is_patched(layer: nn.Module) -> bool:
    """Whether calling `layer` does more than the `forward` of its class: hooks, or another forward."""
    own_hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
    global_hooks = _modules._global_forward_hooks, _modules._global_forward_pre_hooks, _modules._global_backward_hooks
    hooked = any(own_hooks) or any(global_hooks) or bool(_modules._global_backward_pre_hooks)
    replaced = "forward" in vars(layer) or "_conv_forward" in vars(layer)  # the latter by patches for seamless tiles
    return hooked or replaced


def recompute(block: nn.Module, *inputs: Tensor | None) -> Any:
    """block(*inputs), computed once more in the backward pass; diffusers' own function makes torch.compile warn."""
    return checkpoint(block, *inputs, use_reentrant=False)


class GradientCheckpointing(nn.Module):
    """Base of the modules that can run their blocks with gradient checkpointing, in training alone.

    Only a block's inputs are then kept; the backward pass computes the rest of its activations again. diffusers'
    `enable_gradient_checkpointing` looks for modules with `gradient_checkpointing` and sets both attributes.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Tensor]

    def run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """block(*inputs)."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)


class ResBlock(nn.Module):
    """shortcut(x) + conv2(dropout(act2(conv1(act1(x))))): [B, in_channels, H, W] -> [B, out_channels, H, W].

    shortcut: x itself, or a 1x1 convolution where the widths differ. With a `skip`, x and skip have `in_channels`
    together and stand for their concatenation. `normalization` chooses act and conv:
    "group_norm": SiLU(GroupNorm) and a 3x3 convolution; "smc": SiLU and a self-modulated 3x3 convolution (the 1x1
    convolution stays plain); "none": SiLU and a 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dropout: float = 0.0,
        normalization: Normalization = "group_norm",
    ) -> None:
        super().__init__()
        self.has_norm = has_norm = normalization == "group_norm"
        convolution = SMConv2d if normalization == "smc" else nn.Conv2d
        self.norm1 = GroupNormSiLU(in_channels) if has_norm else nn.SiLU()
        self.conv1 = convolution(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNormSiLU(out_channels) if has_norm else nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None and not self.has_norm:
            x, skip = torch.cat([x, skip], dim=1), None  # which GroupNormSiLU need not make
        inputs = (x,) if skip is None else (x, skip)
        hidden = self.conv1(self.norm1(*inputs))  # [B, out_channels, H, W]
        hidden = self.dropout(self.norm2(hidden))
        shortcut = x
        if self.conv_shortcut is not None:
            shortcut = self.conv_shortcut(x) if skip is None else shortcut_of(self.conv_shortcut, x, skip)
        return residual_sum(shortcut, self.conv2, hidden)  # [B, out_channels, H, W]

    def start_residual(self, carried: int = 0) -> None:
        """Add nothing to the shortcut yet (as in ADM, whose UNet appendix F follows), which keeps the variance.

        The first `carried` channels of x pass it unchanged.
        """
        layer: Any = self.conv2
        nn.init.zeros_(layer.gain if isinstance(layer, SMConv2d) else layer.weight)
        nn.init.zeros_(layer.bias)
        if self.conv_shortcut is not None:
            keep_variance(self.conv_shortcut)
            set_outputs(self.conv_shortcut, torch.eye(carried))


def keep_variance(layer: nn.Conv2d) -> None:
    """Draw a weight after which white noise has the variance that it had before (He et al. 2015, gain 1)."""
    # Drawn in NCHW, so that a seed means one model whatever the layout.
    weight = torch.empty_like(layer.weight, memory_format=torch.contiguous_format)
    nn.init.kaiming_normal_(weight, nonlinearity="linear")
    with torch.no_grad():
        layer.weight.copy_(weight)


def set_outputs(layer: nn.Conv2d, matrix: Tensor, kernel: Tensor | None = None, first: int = 0) -> None:
    """Make outputs [first, first + n) a linear map of the first m inputs, without a bias; the others stay.

    Args:
        layer: of an odd kernel size k, with a bias.
        matrix: [n, m].
        kernel: [k, k], what each of these inputs is filtered with; None: the centre alone.
    """
    outputs, inputs = matrix.shape
    size = layer.kernel_size[0]
    if kernel is None:
        kernel = torch.zeros(size, size)
        kernel[size // 2, size // 2] = 1.0
    rows = slice(first, first + outputs)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight[rows] = 0.0
        layer.weight[rows, :inputs] = (matrix[:, :, None, None] * kernel).to(layer.weight)  # [n, m, k, k]
        layer.bias[rows] = 0.0
