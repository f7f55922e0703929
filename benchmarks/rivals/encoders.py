"""The encoders that are compared, and how each of them is made.

image -> [DWT -> feature extraction -> aggregation -> latent] -> decoder -> losses
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness import measure
from benchmarks.harness.available import missing_compiler, missing_package
from benchmarks.rivals import wavelet_peers
from litevae.config import PRESETS, preset
from litevae.models.encoder import Encoder, build_encoder

SD_WIDTHS = (128, 256, 512, 512)  # of Stable Diffusion's VAE
SD_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": SD_WIDTHS,
    "layers_per_block": 2,
    "latent_channels": 4,
}
DC_AE_TYPES = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
DC_AE: dict[str, Any] = {  # dc-ae-f32c32-sana: an eighth of the positions to each side, eight times the channels
    "encoder_block_types": DC_AE_TYPES,
    "decoder_block_types": DC_AE_TYPES,
    "downsample_block_type": "conv",
    "upsample_block_type": "interpolate",
}


def litevae(size: str) -> Encoder:
    return Encoder(PRESETS[size])


def variant(name: str) -> nn.Module:
    """LiteVAE-B's encoder with another part; self-modulated convolutions folded, as `optimize_for_inference` does."""
    architecture = preset("B", **VARIANTS[name])
    if not architecture.has_smc:
        return build_encoder(architecture)
    from litevae.models.litevae import LiteVAE  # needs diffusers

    return LiteVAE(**dataclasses.asdict(architecture)).eval().fold_smc().encoder


def autoencoder_kl() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(**SD_VAE)


def sd_vae() -> nn.Module:
    vae = autoencoder_kl()
    return nn.Sequential(vae.encoder, vae.quant_conv)


def taesd() -> nn.Module:
    from diffusers import AutoencoderTiny

    vae: Any = AutoencoderTiny()
    return vae.encoder


def dc_ae() -> nn.Module:
    from diffusers import AutoencoderDC

    vae: Any = AutoencoderDC(**DC_AE)
    return vae.encoder


class PaperEncoder(nn.Module):
    """LiteVAE's encoder as one writes it down from the paper, around the parameters of `encoder`.

    One call of ptwt for each level; NCHW; skips concatenated; GroupNorm, then SiLU; sums in new tensors.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder: Any = encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        encoder = self.encoder
        features = [
            downsample(self.unet(extract, bands.to(image.dtype)))
            for bands, extract, downsample in zip(
                self.pyramid(image), encoder.extraction, encoder.downsample, strict=True
            )
        ]
        return self.unet(encoder.aggregation, torch.cat(features, dim=1))

    def pyramid(self, image: Tensor) -> Sequence[Tensor]:
        return wavelet_peers.paper(image.float())  # ptwt knows no half precision

    def unet(self, unet: Any, x: Tensor) -> Tensor:
        x = unet.conv_in(x)
        skips = []
        for block in unet.encoder_path:
            x = self.block(block, x)
            skips.append(x)
        for block in unet.middle:
            x = self.block(block, x)
        for block in unet.decoder_path:
            x = self.block(block, torch.cat([x, skips.pop()], dim=1))
        return unet.conv_out(x)

    def block(self, block: Any, x: Tensor) -> Tensor:
        hidden = block.conv1(self.norm(block.norm1, x))
        hidden = block.conv2(self.norm(block.norm2, hidden))
        return (x if block.conv_shortcut is None else block.conv_shortcut(x)) + hidden

    def norm(self, norm: Any, x: Tensor) -> Tensor:
        return F.silu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps))


class Convolution(NamedTuple):
    x: tuple[int, ...]
    weight: tuple[int, ...]
    has_bias: bool
    stride: int
    padding: int


class _Recorded(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions: list[Convolution] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            x, weight, bias, stride, padding, *_ = args
            shapes = tuple(x.shape), tuple(weight.shape)
            self.convolutions.append(Convolution(*shapes, bias is not None, stride[0], padding[0]))
        return func(*args, **(kwargs or {}))


def convolutions_of(name: str, batch: int, side: int) -> list[Convolution]:
    """What the encoder of the row `name` convolves, in its order."""
    with torch.inference_mode(False), torch.no_grad(), _Recorded() as recorded:
        build(name, "meta")(torch.empty(batch, 3, side, side, device="meta"))
    return recorded.convolutions


class Convolutions(nn.Module):
    """The same convolutions with nothing between them, in channels_last: no encoder that has them can be faster."""

    def __init__(self, convolutions: Sequence[Convolution], device: torch.device | str, dtype: torch.dtype) -> None:
        super().__init__()

        def filled(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, device=device).to(dtype).to(memory_format=torch.channels_last)

        inputs = {shape: filled(shape) for shape in {of.x for of in convolutions}}
        self.calls = [
            (
                inputs[of.x],
                filled(of.weight),
                torch.zeros(of.weight[0], device=device, dtype=dtype) if of.has_bias else None,
                of.stride,
                of.padding,
            )
            for of in convolutions
        ]

    def forward(self, image: Tensor) -> None:
        for x, weight, bias, stride, padding in self.calls:
            F.conv2d(x, weight, bias, stride, padding)


class EncoderRow(NamedTuple):
    """An encoder, from `make`, and the form in which it is measured."""

    make: Callable[[], nn.Module]
    package: str = ""  # that it needs
    channels_last: bool = False
    compiled: bool = False

    def missing(self) -> str:
        """Why it cannot be measured here, or ""."""
        missing = missing_package(self.package) if self.package else ""
        return missing or (missing_compiler() if self.compiled else "")


VAE = "VAE"
VARIANTS: dict[str, dict[str, Any]] = {  # of the appendices and beyond; "shared" is left out, whose arithmetic is B's
    "LiteVAE-B, NAFNet": {"extraction": "nafnet"},
    "LiteVAE-B, ViT": {"aggregation": "vit"},
    "LiteVAE-B, last two levels": {"wavelet_levels": (2, 3)},
    "LiteVAE-B, SMC encoder": {"encoder_normalization": "smc", "decoder_normalization": "smc"},
    "LiteVAE-B, f4": {"wavelet_levels": (1, 2), "block_out_channels": (128, 256, 512)},
    "LiteVAE-B, f16": {"wavelet_levels": (1, 2, 3, 4), "block_out_channels": (128, 128, 256, 256, 512)},
    "DWT": {"encoder_type": "dwt", "latent_channels": 12},
    "DWT-2": {"encoder_type": "dwt-2", "latent_channels": 48},
}
ROWS = {
    VAE: EncoderRow(sd_vae, "diffusers"),
    "VAE, channels_last": EncoderRow(sd_vae, "diffusers", channels_last=True),
    "VAE, torch.compile": EncoderRow(sd_vae, "diffusers", channels_last=True, compiled=True),
    "LiteVAE-B as in the paper": EncoderRow(lambda: PaperEncoder(litevae("B")), "ptwt"),
    "LiteVAE-S": EncoderRow(lambda: litevae("S")),
    "LiteVAE-B": EncoderRow(lambda: litevae("B")),
    "LiteVAE-B, torch.compile": EncoderRow(lambda: litevae("B"), compiled=True),
    "LiteVAE-M": EncoderRow(lambda: litevae("M")),
    "LiteVAE-L": EncoderRow(lambda: litevae("L")),
    "TAESD": EncoderRow(taesd, "diffusers"),
    "DC-AE": EncoderRow(dc_ae, "diffusers"),
    **{name: EncoderRow(functools.partial(variant, name), "diffusers") for name in VARIANTS},
}


def build(name: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The encoder of the row `name`: image [B, 3, H, W] -> moments, or what else it has for a latent."""
    row = ROWS[name]
    with torch.device(device):
        encoder: Any = row.make().to(dtype).eval()
    if row.channels_last:
        encoder.to(memory_format=torch.channels_last)
    if row.compiled and str(device) != "meta":
        encoder.compile(dynamic=False)
    return encoder


@functools.cache
def live_mb(name: str, dtype: torch.dtype, batch: int, side: int) -> float:
    """Most MB (10^6 bytes) alive at once while a batch is encoded: parameters, images, activations."""
    with torch.inference_mode():
        encoder = build(name, "meta", dtype)
        return measure.live_mb(encoder, torch.empty(batch, 3, side, side, device="meta", dtype=dtype), encoder)


def litevae_live_mb(size: str, dtype: torch.dtype, batch: int, side: int, slice_size: int | None = None) -> float:
    """The same of `LiteVAE.encode`, with its posterior, at once or slice by slice."""
    from litevae.models.litevae import LiteVAE  # needs diffusers

    with torch.inference_mode():
        with torch.device("meta"):
            model = LiteVAE.from_preset(size).to(dtype=dtype).eval()
        if slice_size:
            model.enable_slicing(slice_size)
        images = torch.empty(batch, 3, side, side, device="meta", dtype=dtype)
        return measure.live_mb(model.encode, images, model.encoder)
