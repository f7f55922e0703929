"""Which LiteVAE is it? Every argument of the architecture, checked, and the paper's four sizes.

image -> DWT -> [feature extraction -> aggregation] -> latent -> [decoder] -> losses
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from litevae_kernels.checks import wrong_kind, wrong_value

DecoderNormalization = Literal["group_norm", "smc", "none"]
OutputType = Literal["image", "wavelet"]


@dataclass(frozen=True)
class LiteVAEConfig:
    """The arguments of `LiteVAE`, checked on construction; lists become tuples.

    Encoder (section 4.1, Tables 23 and 24):
        in_channels, out_channels: channels of the image and of its reconstruction.
        latent_channels: n_z; the latent is [B, latent_channels, H/8, W/8].
        extraction_channels, extraction_multipliers: widths of the UNet of each wavelet level.
        aggregation_channels, aggregation_multipliers: widths of the UNet that merges the levels.
    Decoder (Stable Diffusion's, under diffusers' names):
        block_out_channels: four widths, from the image's side to the latent's.
        layers_per_block: each resolution has `layers_per_block + 1` ResBlocks.
        decoder_normalization: "group_norm"; "smc", the paper's self-modulated convolution (section 4.2, Eq. 3);
            or "none", plain convolutions, which is what `LiteVAE.fold_smc()` makes of "smc".
        decoder_outer_norm: GroupNorm in the attention and before the last convolution. The paper does not say what
            becomes of these two with "smc". None: True for "group_norm", False for "smc" and "none".
        mid_block_add_attention: self-attention at the latent's resolution.
        output_type: "image", or "wavelet": the decoder ends in the sub-bands at H/2 and an inverse DWT follows.
    Both:
        use_quant_conv: 1x1 convolutions after the encoder and before the decoder (`use_1x1_conv` in appendix G).
        dropout: probability inside every ResBlock, in [0, 1).
    For diffusers' pipelines; `encode` and `decode` do not apply them:
        scaling_factor, shift_factor: the diffusion model sees `(latent - shift_factor) * scaling_factor`.
        force_upcast: whether a pipeline in float16 should run the autoencoder in float32.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, or out of its range.

    >>> LiteVAEConfig(latent_channels=12).extraction_multipliers
    (1, 2, 3)
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    extraction_channels: int = 32
    extraction_multipliers: tuple[int, ...] = (1, 2, 3)
    aggregation_channels: int = 32
    aggregation_multipliers: tuple[int, ...] = (1, 2, 3)
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    decoder_normalization: DecoderNormalization = "group_norm"
    decoder_outer_norm: bool | None = None
    mid_block_add_attention: bool = True
    output_type: OutputType = "image"
    use_quant_conv: bool = False
    dropout: float = 0.0
    scaling_factor: float = 1.0
    shift_factor: float | None = None
    force_upcast: bool = False

    def __post_init__(self) -> None:
        counts = ("in_channels", "out_channels", "latent_channels", "extraction_channels", "aggregation_channels")
        for name in (*counts, "layers_per_block"):
            _check_count(name, getattr(self, name))
        for name in ("extraction_multipliers", "aggregation_multipliers", "block_out_channels"):
            object.__setattr__(self, name, _checked_counts(name, getattr(self, name)))
        if len(self.block_out_channels) != 4:
            rule = "have 4 entries (the latent is an eighth of the image's height and width)"
            raise wrong_value("block_out_channels", rule, self.block_out_channels)
        _check_name("decoder_normalization", self.decoder_normalization, get_args(DecoderNormalization))
        _check_name("output_type", self.output_type, get_args(OutputType))
        for name in ("mid_block_add_attention", "use_quant_conv", "force_upcast"):
            _check_flag(name, getattr(self, name))
        if self.decoder_outer_norm is not None:
            _check_flag("decoder_outer_norm", self.decoder_outer_norm, "be True, False or None")
        _check_number("dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise wrong_value("dropout", "be at least 0 and below 1", self.dropout)
        _check_number("scaling_factor", self.scaling_factor)
        if self.scaling_factor == 0:
            raise wrong_value("scaling_factor", "not be 0 (pipelines divide by it)", self.scaling_factor)
        if self.shift_factor is not None:
            _check_number("shift_factor", self.shift_factor)

    @property
    def has_outer_norm(self) -> bool:
        """`decoder_outer_norm`, with None resolved."""
        return (
            self.decoder_normalization == "group_norm" if self.decoder_outer_norm is None else self.decoder_outer_norm
        )


def _check_name(argument: str, value: object, choices: Collection[str], name: str | None = None) -> None:
    """`name`: what is looked up, where it is not `value` itself."""
    rule = f"be one of {', '.join(map(repr, choices))}"
    if not isinstance(value, str):
        raise wrong_kind(argument, rule, value)
    if (value if name is None else name) not in choices:
        raise wrong_value(argument, rule, value)


def _check_count(argument: str, value: object) -> None:
    if type(value) is not int:  # to isinstance, True is an int
        raise wrong_kind(argument, "be a positive integer", value)
    if value < 1:
        raise wrong_value(argument, "be a positive integer", value)


def _checked_counts(argument: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)):
        raise wrong_kind(argument, "be a tuple or list of positive integers", values)
    if not values:
        raise wrong_value(argument, "have at least one entry", values)
    for index, value in enumerate(values):
        _check_count(f"{argument}[{index}]", value)
    return tuple(values)


def _check_flag(argument: str, value: object, rule: str = "be True or False") -> None:
    if not isinstance(value, bool):
        raise wrong_kind(argument, rule, value)


def _check_number(argument: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_kind(argument, "be a finite number", value)
    if not math.isfinite(value):
        raise wrong_value(argument, "be a finite number", value)


def _size(
    extraction_channels: int,
    extraction_multipliers: tuple[int, ...],
    aggregation_channels: int,
    aggregation_multipliers: tuple[int, ...],
) -> LiteVAEConfig:
    return LiteVAEConfig(
        extraction_channels=extraction_channels,
        extraction_multipliers=extraction_multipliers,
        aggregation_channels=aggregation_channels,
        aggregation_multipliers=aggregation_multipliers,
    )


# Feature extraction (Table 23) and aggregation (Table 24): channels, multipliers.
PRESETS: dict[str, LiteVAEConfig] = {
    #          extraction     aggregation      encoder's parameters at latent_channels=4
    "S": _size(16, (1, 2, 2), 16, (1, 2, 2)),  #  1,038,308
    "B": _size(32, (1, 2, 3), 32, (1, 2, 3)),  #  6,753,252
    "M": _size(64, (1, 2, 4), 32, (1, 2, 3)),  # 32,752,740
    "L": _size(64, (1, 2, 4), 64, (1, 2, 4)),  # 41,424,996
}


def preset(name: str, **overrides: Any) -> LiteVAEConfig:
    """The configuration of size `name` ("S", "B", "M" or "L", in either case), with some arguments replaced.

    Raises:
        TypeError: `name` is no string.
        ValueError: no such size, or no such argument.

    >>> preset("s", latent_channels=12).extraction_channels
    16
    """
    _check_name("name", name, PRESETS, name.upper() if isinstance(name, str) else None)
    check_names(overrides)
    return dataclasses.replace(PRESETS[name.upper()], **overrides)


def check_names(names: Iterable[str]) -> None:
    """Raise a ValueError for the first of `names` that is no argument of `LiteVAEConfig`."""
    valid = [field.name for field in dataclasses.fields(LiteVAEConfig)]
    for name in names:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{name!r} is no argument of LiteVAE; {hint}The arguments are {', '.join(valid)}")
