"""Are the decoder's feature maps balanced? Those of its last block, GroupNorm beside SMC: the paper's Figure 3.

image -> DWT -> feature extraction -> aggregation -> latent -> [decoder] -> losses
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from litevae.evaluation.figures import BLUE, GRAY, STYLE, save_figure
from litevae_kernels.checks import check_int, wrong_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


@dataclass(frozen=True)
class FeatureMaps:
    """What the decoder's last block gives for some images."""

    maps: Tensor
    """float32 [B, C, H, W] on the CPU."""

    @property
    def channel_rms(self) -> Tensor:
        """Root mean square of each channel, over images and places: float64 [C]."""
        return self.maps.double().square().mean(dim=(0, 2, 3)).sqrt()

    @property
    def place_rms(self) -> Tensor:
        """Root mean square over channels at each place: float64 [B, H, W]."""
        return self.maps.double().square().mean(dim=1).sqrt()

    @property
    def imbalance(self) -> float:
        """Largest over median RMS of the channels: 1 is balanced."""
        return _peak(self.channel_rms)

    @property
    def place_imbalance(self) -> float:
        """Largest over median RMS of the places: section 4.2 finds areas of far larger magnitude."""
        return _peak(self.place_rms)


@torch.no_grad()
def feature_maps(model: nn.Module, images: Tensor) -> FeatureMaps:
    """The output of `model.decoder.up_blocks[-1]`, the decoder's last block, for the modes of images' posteriors.

    The paper says neither which channels Figure 3 shows nor how they are reduced: here all are there.

    Args:
        model: a LiteVAE or StableDiffusionVAE; it is measured in eval mode and left in its own.
        images: [B, 3, H, W] in [-1, 1] or uint8, as the model takes them, on its device; B at least 1.

    Raises:
        ValueError: no images.

    >>> from litevae import LiteVAE
    >>> model = LiteVAE.from_preset("S", block_out_channels=(32, 32, 32, 32))
    >>> tuple(feature_maps(model, torch.zeros(2, 3, 16, 24)).maps.shape)
    (2, 32, 16, 24)
    """
    if not len(images):
        raise wrong_value("images", "hold at least one image", images)
    found: list[Tensor] = []
    vae: Any = model
    handle = vae.decoder.up_blocks[-1].register_forward_hook(lambda module, inputs, output: found.append(output))
    was_training = model.training
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code has no hooks
            vae.decode(vae.encode(images).latent_dist.mode())
    finally:
        handle.remove()
        model.train(was_training)
    return FeatureMaps(torch.cat(found).float().cpu().contiguous())  # one for each slice of the batch


def save_feature_maps(path: Path, models: Mapping[str, nn.Module], images: Tensor, channels: int = 16) -> None:
    """A column for each model {label: model}: RMS by channel, RMS by place, and the channels with the largest RMS.

    RMS is in medians, on one scale for all models; the channels of a model have one scale too. The first image is
    shown, the numbers are of all.

    Args:
        images: as `feature_maps` takes them.
        channels: how many feature maps are shown, from the one with the largest RMS on.

    Raises:
        TypeError, ValueError: no model, no images, or channels is no int of at least 1.
    """
    import matplotlib

    if not models:
        raise wrong_value("models", "hold at least one model", dict(models))
    check_int("channels", channels, at_least=1)
    found = {label: feature_maps(model, images) for label, model in models.items()}
    with matplotlib.rc_context(STYLE):
        save_figure(_figure(found, channels), path)


def _figure(found: Mapping[str, FeatureMaps], channels: int) -> "Figure":
    from matplotlib.figure import Figure

    height, width = next(iter(found.values())).maps.shape[-2:]
    column, tall = 5.0, 5.0 * height / width  # inches
    figure = Figure(figsize=(column * len(found), 2.6 + 2 * tall), layout="constrained")
    columns = figure.subfigures(1, len(found), squeeze=False)[0]
    highest = max(features.imbalance for features in found.values())
    brightest = max(features.place_imbalance for features in found.values())
    for (label, features), part in zip(found.items(), columns, strict=True):
        part.suptitle(label, x=0.02, ha="left", fontsize=14, fontweight="bold")
        curve, places, grid = part.subfigures(3, 1, height_ratios=(2.2, tall, tall + 0.4))
        _draw_channel_rms(curve.subplots(), features, highest)
        axes = places.subplots()
        _show(axes, features.place_rms[0] / features.place_rms.median(), 0, brightest, "magma")
        axes.set_title(f"RMS by place: the largest is {features.place_imbalance:.2f} medians", fontsize=10)
        _draw_channels(grid, features, channels)
    return figure


def _draw_channel_rms(axes: "Axes", features: FeatureMaps, highest: float) -> None:
    rms = features.channel_rms.sort(descending=True).values
    axes.bar(range(1, len(rms) + 1), (rms / rms.median()).tolist(), color=BLUE, width=0.8)
    axes.axhline(1, color=GRAY, linewidth=1)
    axes.set_title(f"RMS by channel, sorted: the largest is {features.imbalance:.2f} medians", fontsize=10)
    axes.set(xlim=(0.4, len(rms) + 0.6), ylim=(0, 1.05 * highest))
    axes.grid(axis="x", visible=False)


def _draw_channels(part: "SubFigure", features: FeatureMaps, channels: int) -> None:
    """The channels with the largest RMS, in the first image, on one scale around 0."""
    order = features.channel_rms.argsort(descending=True)[:channels]
    shown = features.maps[0, order]
    limit = shown.abs().max().item()
    title = f"The {len(order)} largest channels, -{limit:.3g} to {limit:.3g}"
    part.suptitle(title, x=0.06, ha="left", fontsize=10, fontweight="bold")
    side = math.ceil(math.sqrt(len(order)))
    panels = part.subplots(math.ceil(len(order) / side), side, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, one in zip(panels, shown, strict=False):
        _show(axes, one, -limit, limit, "RdBu_r")


def _show(axes: "Axes", values: Tensor, low: float, high: float, colours: str) -> None:
    axes.imshow(values.numpy(), vmin=low, vmax=high, cmap=colours, interpolation="nearest")
    axes.set_axis_off()


def _peak(rms: Tensor) -> float:
    return (rms.max() / rms.median()).item()
