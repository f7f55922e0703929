"""What an autoencoder's run says about itself: the lines at its start, the table and the figures at its end.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [report]
"""

import shlex
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litevae.config import LiteVAEConfig
from litevae.cost import parameter_count
from litevae.data import TrainingData
from litevae.evaluation.figures import latent_to_rgb, save_curves, save_reconstruction_grid
from litevae.evaluation.held_out import Evaluation
from litevae.models.model_card import keep_own_card
from litevae.models.model_facts import ModelFacts
from litevae.runs.processes import Processes
from litevae.runs.run_folder import RunFolder
from litevae.training.config import RunConfig
from litevae.training.latent_scale import describe_scale
from litevae.training.networks import Autoencoder, Networks
from litevae_kernels.files import replacing

MAX_PICTURES = 8  # held-out images in TensorBoard


class AutoencoderFolder(RunFolder):
    """A run folder with an autoencoder's figures.

    grids/                 step-XXXXXX.png: held-out originals, reconstructions and latents
    loss_and_psnr.png      the curves of metrics.jsonl, which also has the scale of the latents: "kind" is "latents"
    reconstructions.png    the last of the grids
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.grids = path / "grids"
        self.curves = path / "loss_and_psnr.png"
        self.reconstructions = path / "reconstructions.png"

    def latents(self) -> dict[str, Any] | None:
        """The line of the scale that was measured last, if it was."""
        return next((line for line in reversed(self.read_metrics()) if line["kind"] == "latents"), None)


FEWER_THREADS = "fewer with OMP_NUM_THREADS: a core that another program keeps busy makes a step up to 3 times as long"


def introduction(
    config: RunConfig,
    networks: Networks,
    processes: Processes,
    data: TrainingData,
    step: int,
    baseline: Evaluation,
    latents: dict[str, Any] | None = None,
) -> str:
    """What is about to be trained, and on what; of a run that goes on the scale of its latents at its earlier end."""
    train, architecture = config.train, config.model.architecture
    names = ", ".join(image.name for image in baseline.images[:4]) + (" ..." if baseline.count > 4 else "")
    average = f", averaged at {train.ema_decay:g}" if train.ema_decay else ""
    return "\n".join(
        [
            f"model     {model_name(config)}: encoder {_millions(networks.model.encoder)}, "
            f"decoder {_millions(networks.model.decoder)} ({', '.join(map(str, architecture.block_out_channels))}), "
            f"{architecture.latent_channels} latent channels"
            + (f"; the {train.freeze} is frozen" if train.freeze else ""),
            f"losses    {loss_summary(config, networks)}",
            f"images    {data.description} to train on, {baseline.count} held out ({names})",
            f"training  steps {step} to {train.steps}, {train.batch_size} crops of {config.data.crop_size} pixels, "
            f"Adam at {train.learning_rate:g}{average}, {train.precision}, {processes.place}",
            *([] if processes.device.type == "cuda" else [f"threads   {torch.get_num_threads()}, {FEWER_THREADS}"]),
            f"baseline  {baseline.method}: {quality(baseline)}",
            *([] if latents is None else [f"latents   {describe_scale(latents)}"]),
        ]
    )


def model_name(config: RunConfig) -> str:
    """LiteVAE-B, say, or SD-VAE, or DWT; with the arguments of its encoder that are not the paper's first choice."""
    if config.model.kind == "sd-vae":
        return "SD-VAE"
    architecture = config.model.architecture
    size = f"LiteVAE-{config.model.size.upper()}"
    if architecture.is_deterministic:
        return architecture.encoder_type.upper()
    names = ("wavelet_levels", "extraction", "shared_extraction", "aggregation", "encoder_normalization")
    own = {name: getattr(architecture, name) for name in names}
    others = [f"{name}={value}" for name, value in own.items() if value != getattr(LiteVAEConfig, name)]
    return f"{size} ({', '.join(others)})" if others else size


def loss_summary(config: RunConfig, networks: Networks) -> str:
    """Every weight that is not 0, and the networks that losses come from."""
    weights = {name: weight for name, weight in config.loss.weights.items() if weight}
    names = {"adversarial": f"adversarial ({config.loss.adversarial_loss}, {config.discriminator.kind})"}
    if networks.loss.perceptual is not None:
        names["perceptual"] = str(networks.loss.perceptual.name)
    return ", ".join(f"{names.get(name, name)} {weight:g}" for name, weight in weights.items())


def quality(evaluation: Evaluation) -> str:
    """PSNR, SSIM and, if measured, LPIPS under the name of its trunk."""
    lpips = "" if evaluation.lpips is None else f", {evaluation.lpips_name} {evaluation.lpips:.3f}"
    return f"{evaluation.psnr:.2f} dB, SSIM {evaluation.ssim:.3f}{lpips}"


def conclusion(
    folder: AutoencoderFolder, evaluation: Evaluation, baseline: Evaluation, latents: dict[str, Any] | None = None
) -> str:
    """The quality that was reached, the scale of the latents, and the files that were written."""
    return "\n".join(
        [
            "",
            quality_table(folder, evaluation, baseline),
            *([] if evaluation.lpips is None else [f"{evaluation.lpips_name}: {evaluation.lpips:.3f} (mean)"]),
            *(
                f"{name}: {value:.4g} ({baseline.method}: {baseline.distances[name]:.4g})"
                for name, value in evaluation.distances.items()
            ),
            "",
            *([] if latents is None else [f"latents   {describe_scale(latents)}"]),
            f"written   {folder.path}: model/, {folder.reconstructions.name}, {folder.curves.name}, "
            f"{folder.metrics.name}",
            f"try it    python -m litevae.reconstruct photo.jpg --model {shlex.quote(str(folder.path))}",
        ]
    )


def _millions(module: nn.Module) -> str:
    return f"{parameter_count(module) / 1e6:.2f} M"


def write_grid(path: Path, evaluation: Evaluation, raw: Evaluation | None, step: int) -> None:
    """The held-out images after `step` steps."""
    title = f"Held-out images after {step:,} steps: {evaluation.psnr:.2f} dB (mean)"
    with replacing(path) as temporary:
        save_reconstruction_grid(temporary, evaluation, title, raw=raw)


def pictures(evaluation: Evaluation, with_originals: bool) -> dict[str, Tensor]:
    """Reconstructions and latents of the first held-out images, [3, H, W] in [-1, 1], by name."""
    shown = {}
    for image in evaluation.images[:MAX_PICTURES]:
        if with_originals:
            shown[f"{image.name}/original"] = image.original
        shown[f"{image.name}/reconstruction"] = image.reconstruction
        if image.latent is not None:
            shown[f"{image.name}/latent"] = latent_to_rgb(image.latent)
    return shown


def write_results(
    folder: AutoencoderFolder,
    model: Autoencoder,
    evaluation: Evaluation,
    raw: Evaluation | None,
    baseline: Evaluation,
    step: int,
    facts: ModelFacts,
) -> None:
    """The two figures, then the model in save_pretrained form: with it a run counts as finished.

    `facts`: for the model's card; one that was changed by hand stays.
    """
    with replacing(folder.curves) as temporary:
        save_curves(temporary, folder.read_metrics(), baseline.psnr)
    write_grid(folder.reconstructions, evaluation, raw, step)
    with replacing(folder.model) as temporary:
        model.save_pretrained(temporary, about=facts)
        keep_own_card(folder.model, temporary)


def quality_table(folder: RunFolder, evaluation: Evaluation, baseline: Evaluation) -> str:
    """Held-out PSNR and SSIM before and after training, next to the bicubic baseline, whichever wins."""
    before = folder.evaluations()[0]
    width = max(len("held-out"), *map(len, evaluation.scores))
    lines = [
        f"{'':<{width}}   {'before training':>16}   {'after training':>16}   {baseline.method:>20}",
        f"{'held-out':<{width}}   {'PSNR':>8} {'SSIM':>7}   {'PSNR':>8} {'SSIM':>7}   {'PSNR':>12} {'SSIM':>7}",
    ]

    def row(name: str, first: dict[str, Any] | None, after: dict[str, float], rival: dict[str, float]) -> str:
        # A resumed run may have been given other held-out images: those were not measured before training.
        start = f"{'-':>8} {'-':>7}" if first is None else f"{first['psnr']:5.2f} dB {first['ssim']:7.3f}"
        return (
            f"{name:<{width}}   {start}   "
            f"{after['psnr']:5.2f} dB {after['ssim']:7.3f}   {rival['psnr']:9.2f} dB {rival['ssim']:7.3f}"
        )

    for name, scores in evaluation.scores.items():
        if name in baseline.scores:  # an image may have become unreadable since the start of the run
            lines.append(row(name, before["images"].get(name), scores, baseline.scores[name]))
    same_images = set(before["images"]) == set(evaluation.scores)
    lines.append(row("mean", before if same_images else None, evaluation.means, baseline.means))
    difference = evaluation.psnr - baseline.psnr
    verdict = "above" if difference >= 0 else "below"
    lines.append(f"After training the autoencoder is {abs(difference):.2f} dB {verdict} the bicubic baseline.")
    return "\n".join(lines)
