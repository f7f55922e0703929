"""The architecture of a LiteVAE: every argument, checked, and the paper's four sizes.

image -> DWT -> [feature extraction -> aggregation] -> latent -> [decoder] -> losses
"""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from litevae_kernels.checks import (
    check_choice,
    check_flag,
    check_int,
    check_number,
    checked_ints,
    wrong_kind,
    wrong_value,
)

EncoderType = Literal["learned", "dwt", "dwt-2"]
Extraction = Literal["unet", "nafnet"]
Aggregation = Literal["unet", "vit"]
Normalization = Literal["group_norm", "smc", "none"]
OutputType = Literal["image", "wavelet"]


_COUNTS = (
    "in_channels", "out_channels", "latent_channels", "extraction_channels", "nafnet_width", "nafnet_blocks",
    "aggregation_channels", "vit_width", "vit_depth", "vit_heads", "layers_per_block",
)  # fmt: skip
_CHOICES: dict[str, Any] = {
    "encoder_type": EncoderType,
    "extraction": Extraction,
    "aggregation": Aggregation,
    "encoder_normalization": Normalization,
    "decoder_normalization": Normalization,
    "output_type": OutputType,
}
_WITHOUT_PARAMETERS = {
    "extraction": "unet",
    "shared_extraction": False,
    "aggregation": "unet",
    "encoder_normalization": "group_norm",
    "use_quant_conv": False,
}


@dataclass(frozen=True)
class LiteVAEConfig:
    """The architecture of a LiteVAE: the one list of its arguments, checked on construction; lists become tuples.

    `architecture` means an object of this class wherever the word stands: `LiteVAE.architecture`, a run's
    `model.architecture`. `LiteVAE.config` holds the same values in diffusers' form. The order: encoder (section 4.1,
    Tables 23 and 24, appendix B), decoder (Stable Diffusion's, under diffusers' names), both, and what diffusers'
    pipelines read.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, or out of its range.

    >>> LiteVAEConfig(latent_channels=12).extraction_multipliers
    (1, 2, 3)
    """

    in_channels: int = 3
    """Channels of the image."""
    out_channels: int = 3
    """Channels of the reconstruction."""
    latent_channels: int = 4
    """n_z: the latent is [B, latent_channels, H/8, W/8]."""
    encoder_type: EncoderType = "learned"
    """"learned", the paper's; or an encoder without parameters, for which the extraction and aggregation mean nothing:
    "dwt", the sub-bands of the last level, `latent_channels=12`; or "dwt-2", those of the level before it by
    space-to-depth, `latent_channels=48` (Tables 11 to 13). Their posterior has no noise."""
    wavelet_levels: tuple[int, ...] = (1, 2, 3)
    """The levels whose sub-bands the encoder reads, in order. The last one, 2, 3 or 4, gives the latent's resolution:
    H/4, H/8 or H/16. (2, 3) leaves out the finest (Table 21)."""
    extraction: Extraction = "unet"
    """The network that extracts the features of a wavelet level: "unet", or "nafnet" (Table 18)."""
    shared_extraction: bool = False
    """One such network for all levels (Table 19), instead of one for each."""
    extraction_channels: int = 32
    """Width of the UNet that extracts features (Table 23)."""
    extraction_multipliers: tuple[int, ...] = (1, 2, 3)
    """Factors of that width, one for each pair of ResBlocks."""
    nafnet_width: int = 128
    """Width of the NAFNet that extracts features. The paper gives neither width nor depth: these make as many
    parameters as size B's UNet has."""
    nafnet_blocks: int = 14
    """Blocks of that NAFNet."""
    aggregation: Aggregation = "unet"
    """The network that merges the levels: "unet", or "vit" (Table 20)."""
    aggregation_channels: int = 32
    """Width of the UNet that merges the levels (Table 24)."""
    aggregation_multipliers: tuple[int, ...] = (1, 2, 3)
    """Factors of that width, one for each pair of ResBlocks."""
    vit_width: int = 128
    """Width of the ViT that merges the levels. The paper gives the 0.84 M parameters alone, which these make."""
    vit_depth: int = 4
    """Blocks of that ViT."""
    vit_heads: int = 4
    """Heads of its attention; they divide the width."""
    encoder_normalization: Normalization = "group_norm"
    """That of the encoder's UNets: as `decoder_normalization` (`use_smc` in appendix G). "smc" and "none" bound how far
    a latent sees."""
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    """Widths of the decoder, from the image's side to the latent's: one more than the last of `wavelet_levels`."""
    layers_per_block: int = 2
    """Each resolution of the decoder has `layers_per_block + 1` ResBlocks."""
    decoder_normalization: Normalization = "group_norm"
    """"group_norm"; "smc", the paper's self-modulated convolution (section 4.2, Eq. 3); or "none", plain convolutions,
    which is what `LiteVAE.fold_smc()` makes of "smc"."""
    decoder_outer_norm: bool | None = None
    """GroupNorm in the decoder's attention and before its last convolution. The paper does not say what becomes of
    these two with "smc". None: True for "group_norm", False for "smc" and "none"."""
    mid_block_add_attention: bool = True
    """Self-attention at the latent's resolution of the decoder."""
    output_type: OutputType = "image"
    """"image", or "wavelet": the decoder ends in the sub-bands at H/2, and an inverse DWT follows."""
    use_quant_conv: bool = False
    """1x1 convolutions after the encoder and before the decoder (`use_1x1_conv` in appendix G)."""
    dropout: float = 0.0
    """Probability inside every block, at least 0 and below 1."""
    scaling_factor: float = 1.0
    """A diffusion pipeline sees `(latent - shift_factor) * scaling_factor`; `encode` and `decode` do not apply it.
    Where a run's config does not give it, the end of training writes 1 / the standard deviation of the latents of its
    data."""
    shift_factor: float | None = None
    """See `scaling_factor`."""
    force_upcast: bool = False
    """Whether a diffusion pipeline in float16 should run the autoencoder in float32. Pipelines such as SDXL's then read
    the dtype of `post_quant_conv`, so that `use_quant_conv` must be True."""
    latent_channel_means: tuple[float, ...] | None = None
    """The mean of each channel of the latents of the training data; None: not measured. For a diffusion model that
    scales each channel by itself, instead of `scaling_factor`: diffusers' pipelines do not read it."""
    latent_channel_stds: tuple[float, ...] | None = None
    """Their standard deviations, above 0, of samples of the posteriors."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            check_int(name, getattr(self, name), at_least=1)
        for name in ("wavelet_levels", "extraction_multipliers", "aggregation_multipliers", "block_out_channels"):
            object.__setattr__(self, name, checked_ints(name, getattr(self, name), at_least=1))
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), get_args(choices))
        for name in ("shared_extraction", "mid_block_add_attention", "use_quant_conv", "force_upcast"):
            check_flag(name, getattr(self, name))
        self._check_encoder()
        check_widths("block_out_channels", self.block_out_channels, self.wavelet_levels)
        check_flag("decoder_outer_norm", self.decoder_outer_norm, or_none=True)
        check_number("dropout", self.dropout, at_least=0, below=1)
        check_number("scaling_factor", self.scaling_factor)
        if self.scaling_factor == 0:
            raise wrong_value("scaling_factor", "not be 0 (pipelines divide by it)", self.scaling_factor)
        if self.shift_factor is not None:
            check_number("shift_factor", self.shift_factor)
        for name, above in (("latent_channel_means", None), ("latent_channel_stds", 0)):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _checked_channels(name, values, self.latent_channels, above))

    def _check_encoder(self) -> None:
        levels = self.wavelet_levels
        if list(levels) != sorted(set(levels)) or not 2 <= levels[-1] <= 4:
            rule = "be different levels in order, the last one 2, 3 or 4 (a latent at H/4, H/8 or H/16)"
            raise wrong_value("wavelet_levels", rule, levels)
        if self.aggregation == "vit" and self.vit_width % self.vit_heads:
            raise wrong_value("vit_heads", f"divide vit_width, {self.vit_width}", self.vit_heads)
        if self.encoder_normalization != "group_norm" and (self.extraction, self.aggregation) != ("unet", "unet"):
            networks = f"extraction={self.extraction!r} and aggregation={self.aggregation!r}"
            rule = f"be 'group_norm' unless both networks are UNets (here {networks})"
            raise wrong_value("encoder_normalization", rule, self.encoder_normalization)
        if self.encoder_type == "learned":
            return
        channels = self.in_channels * (4 if self.encoder_type == "dwt" else 16)
        if self.latent_channels != channels:
            rule = f"be {channels} with encoder_type={self.encoder_type!r}, whose latent is sub-bands"
            raise wrong_value("latent_channels", rule, self.latent_channels)
        for name, only in _WITHOUT_PARAMETERS.items():
            if getattr(self, name) != only:
                rule = f"be {only!r} with encoder_type={self.encoder_type!r}, which has no parameters"
                raise wrong_value(name, rule, getattr(self, name))
        if levels != tuple(range(1, levels[-1] + 1)):
            rule = f"have all levels to the last with encoder_type={self.encoder_type!r}, which takes no choice of them"
            raise wrong_value("wavelet_levels", rule, levels)

    @property
    def downsampling(self) -> int:
        """The image's sides divided by the latent's: 4, 8 or 16."""
        return 2 ** self.wavelet_levels[-1]

    @property
    def is_deterministic(self) -> bool:
        """Whether the encoder has no parameters, and its posterior no noise and no divergence from N(0, 1)."""
        return self.encoder_type != "learned"

    @property
    def has_smc(self) -> bool:
        """Whether a part has self-modulated convolutions."""
        return "smc" in (self.encoder_normalization, self.decoder_normalization)

    @property
    def has_outer_norm(self) -> bool:
        """`decoder_outer_norm`, with None resolved."""
        return (
            self.decoder_normalization == "group_norm" if self.decoder_outer_norm is None else self.decoder_outer_norm
        )


def _checked_channels(argument: str, values: Any, channels: int, above: float | None) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)):
        raise wrong_kind(argument, "be a list or tuple of numbers, or None", values)
    if len(values) != channels:
        raise wrong_value(argument, f"have an entry for each of the {channels} latent channels", values)
    for index, value in enumerate(values):
        check_number(f"{argument}[{index}]", value, above=above)
    return tuple(values)


def check_widths(argument: str, widths: tuple[int, ...], levels: tuple[int, ...] = (1, 2, 3)) -> None:
    """Raise a ValueError unless the networks that have these widths reach from the image to the last level."""
    if len(widths) != levels[-1] + 1:
        rule = f"have {levels[-1] + 1} entries (the latent has 1/{2 ** levels[-1]} of the image's height and width)"
        raise wrong_value(argument, rule, widths)


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
    size = name.upper() if isinstance(name, str) else name
    if size not in PRESETS:
        check_choice("name", name, PRESETS)
    check_names(overrides)
    return dataclasses.replace(PRESETS[size], **overrides)


def check_names(names: Iterable[str]) -> None:
    """Raise a ValueError for the first of `names` that is no argument of `LiteVAEConfig`."""
    valid = [field.name for field in dataclasses.fields(LiteVAEConfig)]
    for name in names:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{name!r} is no argument of LiteVAE; {hint}The arguments are {', '.join(valid)}")
