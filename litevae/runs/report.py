"""What does a run say about itself? The lines at its start, the table and the files at its end.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [report]
"""

import shlex
from pathlib import Path
from typing import Any

from torch import nn

from litevae.evaluation.figures import save_curves, save_reconstruction_grid
from litevae.evaluation.held_out import Evaluation, Measured
from litevae.runs.processes import Processes
from litevae.runs.run_folder import RunFolder
from litevae.training.config import RunConfig
from litevae.training.networks import Autoencoder, Networks
from litevae_kernels.files import replacing


def opening(
    config: RunConfig,
    networks: Networks,
    processes: Processes,
    *,
    images: str,
    step: int,
    baseline: Evaluation,
) -> str:
    """What is about to be trained, on what."""
    train, architecture = config.train, config.model.architecture
    names = ", ".join(image.name for image in baseline.images[:4]) + (" ..." if baseline.count > 4 else "")
    device = "GPU" if processes.device.type == "cuda" else "CPU"
    where = f"on the {device}" if processes.world_size == 1 else f"in {processes.world_size} processes, a {device} each"
    average = f", averaged at {train.ema_decay:g}" if train.ema_decay else ""
    return "\n".join(
        [
            f"model     {model_name(config)}: encoder {_millions(networks.model.encoder)}, "
            f"decoder {_millions(networks.model.decoder)} ({', '.join(map(str, architecture.block_out_channels))}), "
            f"{architecture.latent_channels} latent channels",
            f"losses    {loss_summary(config, networks)}",
            f"images    {images} to train on, {baseline.count} held out ({names})",
            f"training  steps {step} to {train.steps}, {train.batch_size} crops of {config.data.crop_size} pixels, "
            f"Adam at {train.learning_rate:g}{average}, {precision_name(config)}, {where}",
            f"baseline  8x down, bicubic up: {quality(baseline)}",
        ]
    )


def model_name(config: RunConfig) -> str:
    """LiteVAE-B, say, or SD-VAE."""
    return "SD-VAE" if config.model.kind == "sd-vae" else f"LiteVAE-{config.model.size.upper()}"


def precision_name(config: RunConfig) -> str:
    return {"no": "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast"}[config.train.mixed_precision]


def loss_summary(config: RunConfig, networks: Networks) -> str:
    """Every weight that is not 0, and which networks judge."""
    weights = {name: weight for name, weight in config.loss.weights.items() if weight}
    names = {"adversarial": f"adversarial ({config.loss.adversarial_loss}, {config.discriminator.kind})"}
    if networks.loss.perceptual is not None:
        names["perceptual"] = str(networks.loss.perceptual.name)
    return ", ".join(f"{names.get(name, name)} {weight:g}" for name, weight in weights.items())


def quality(evaluation: Evaluation) -> str:
    """PSNR, SSIM and, if measured, LPIPS under the name of its trunk."""
    lpips = "" if evaluation.lpips is None else f", {evaluation.lpips_name} {evaluation.lpips:.3f}"
    return f"{evaluation.psnr:.2f} dB, SSIM {evaluation.ssim:.3f}{lpips}"


def closing(folder: RunFolder, evaluation: Evaluation, baseline: Evaluation) -> str:
    """The quality that was reached, and where to look."""
    return "\n".join(
        [
            "",
            quality_table(folder, evaluation, baseline),
            *([] if evaluation.lpips is None else [f"{evaluation.lpips_name}: {evaluation.lpips:.3f} (mean)"]),
            "",
            f"written   {folder.path}: model/, {folder.reconstructions.name}, {folder.curves.name}, "
            f"{folder.metrics.name}",
            f"try it    python -m litevae.reconstruct photo.jpg --model {shlex.quote(str(folder.path))}",
        ]
    )


def _millions(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f} M"


def write_grid(path: Path, evaluation: Evaluation, raw: Evaluation | None, step: int) -> None:
    """The held-out images after `step` steps."""
    title = f"Held-out images after {step:,} steps: {evaluation.psnr:.2f} dB (mean)"
    with replacing(path) as temporary:
        save_reconstruction_grid(temporary, evaluation, title, raw=raw)


def write_results(
    folder: RunFolder,
    model: Autoencoder,
    evaluation: Evaluation,
    raw: Evaluation | None,
    baseline: Evaluation,
    step: int,
) -> None:
    """The two figures, then the model in save_pretrained form: with it a run counts as finished."""
    with replacing(folder.curves) as temporary:
        save_curves(temporary, folder.read_metrics(), baseline.psnr)
    write_grid(folder.reconstructions, evaluation, raw, step)
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

    rivals = {image.name: image for image in baseline.images}
    for image in evaluation.images:
        if image.name in rivals:  # an image may have become unreadable since the start of the run
            lines.append(row(image.name, before["images"].get(image.name), image, rivals[image.name]))
    same_images = set(before["images"]) == {image.name for image in evaluation.images}
    lines.append(row("mean", before if same_images else None, evaluation, baseline))
    difference = evaluation.psnr - baseline.psnr
    verdict = "above" if difference >= 0 else "below"
    lines.append(f"After training the autoencoder is {abs(difference):.2f} dB {verdict} the bicubic baseline.")
    return "\n".join(lines)
