"""What does a run say about itself? The lines at its start, the table and the files at its end.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [report]
"""

import shlex
from typing import Any

from torch import nn

from litevae.figures import save_curves, save_reconstruction_grid
from litevae.models.litevae import LiteVAE
from litevae.training.atomic import replacing
from litevae.training.config import RunConfig
from litevae.training.evaluate import Evaluation, HeldOutImage, Measured
from litevae.training.run_folder import RunFolder


def opening(
    config: RunConfig, model: LiteVAE, *, photos: int, held_out: list[HeldOutImage], step: int, baseline: Evaluation
) -> str:
    """What is about to be trained, on what."""
    architecture, train = model.architecture, config.train
    widths = ", ".join(map(str, architecture.block_out_channels))
    names = ", ".join(item.name for item in held_out[:4]) + (" ..." if len(held_out) > 4 else "")
    return "\n".join(
        [
            f"model     LiteVAE-{config.model.size.upper()}: encoder {_millions(model.encoder)}, "
            f"decoder {_millions(model.decoder)} ({widths}), {architecture.latent_channels} latent channels",
            f"images    {photos} to train on, {len(held_out)} held out ({names})",
            f"training  steps {step} to {train.steps}, {train.batch_size} crops of {config.data.crop_size} pixels, "
            f"Adam at {train.learning_rate:g}, on the {'GPU' if model.device.type == 'cuda' else 'CPU'}",
            f"baseline  8x down, bicubic up: {baseline.psnr:.2f} dB, SSIM {baseline.ssim:.3f}",
        ]
    )


def closing(folder: RunFolder, evaluation: Evaluation, baseline: Evaluation) -> str:
    """The quality that was reached, and where to look."""
    return "\n".join(
        [
            "",
            quality_table(folder, evaluation, baseline),
            "",
            f"written   {folder.path}: model/, {folder.reconstructions.name}, {folder.curves.name}, "
            f"{folder.metrics.name}",
            f"try it    python -m litevae.reconstruct photo.jpg --model {shlex.quote(str(folder.path))}",
        ]
    )


def _millions(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f} M"


def write_results(folder: RunFolder, model: LiteVAE, evaluation: Evaluation, baseline: Evaluation, step: int) -> None:
    """The two figures, then the model in save_pretrained form: with it a run counts as finished."""
    with replacing(folder.curves) as temporary:
        save_curves(temporary, folder.read_metrics(), baseline.psnr)
    title = f"Held-out images after {step:,} steps: {evaluation.psnr:.2f} dB (mean)"
    with replacing(folder.reconstructions) as temporary:
        save_reconstruction_grid(temporary, evaluation, title)
    with replacing(folder.model) as temporary:
        model.save_pretrained(temporary)


def quality_table(folder: RunFolder, evaluation: Evaluation, baseline: Evaluation) -> str:
    """Held-out PSNR and SSIM before and after training, next to the bicubic baseline, whichever wins."""
    before = folder.evaluations()[0]
    width = max(len("held-out"), *(len(image.name) for image in evaluation.images))
    lines = [
        f"{'':<{width}}   {'before training':>16}   {'after training':>16}   {'8x down, bicubic up':>19}",
        f"{'held-out':<{width}}   {'PSNR':>8} {'SSIM':>7}   {'PSNR':>8} {'SSIM':>7}   {'PSNR':>11} {'SSIM':>7}",
    ]

    def row(name: str, first: dict[str, Any] | None, after: Measured | Evaluation, rival: Measured | Evaluation) -> str:
        # A resumed run may have been given other held-out images: those were not measured before training.
        start = f"{'-':>8} {'-':>7}" if first is None else f"{first['psnr']:5.2f} dB {first['ssim']:7.3f}"
        return (
            f"{name:<{width}}   {start}   "
            f"{after.psnr:5.2f} dB {after.ssim:7.3f}   {rival.psnr:8.2f} dB {rival.ssim:7.3f}"
        )

    for image, rival in zip(evaluation.images, baseline.images, strict=True):
        lines.append(row(image.name, before["images"].get(image.name), image, rival))
    same_images = set(before["images"]) == {image.name for image in evaluation.images}
    lines.append(row("mean", before if same_images else None, evaluation, baseline))
    difference = evaluation.psnr - baseline.psnr
    verdict = "above" if difference >= 0 else "below"
    lines.append(f"After training LiteVAE is {abs(difference):.2f} dB {verdict} the bicubic baseline.")
    return "\n".join(lines)
