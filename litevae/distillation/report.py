"""What a distillation says about itself: the lines at its start and end, its curves, its pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from litevae.cost import parameter_count
from litevae.data import TrainingData
from litevae.data.images import to_image
from litevae.distillation.config import DistillationConfig
from litevae.distillation.evaluation import Comparison
from litevae.distillation.losses import DistillationLoss
from litevae.distillation.networks import DistillationNetworks
from litevae.distillation.teacher import Teacher
from litevae.evaluation.figures import BLUE, GRAY, ORANGE, STYLE, draw_losses, label_ends, save_figure
from litevae.runs.processes import Processes
from litevae.runs.run_folder import RunFolder
from litevae_kernels.files import replacing


class DistillationFolder(RunFolder):
    """A run folder with a distillation's figures; model/ is a HybridAutoencoder.

    grids/                 step-XXXXXX.png: held-out originals, by the teacher, by the student
    loss_and_psnr.png      the curves of metrics.jsonl
    reconstructions.png    the last of the grids
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.grids = path / "grids"
        self.curves = path / "loss_and_psnr.png"
        self.pictures = path / "reconstructions.png"


def introduction(
    config: DistillationConfig,
    networks: DistillationNetworks,
    teacher: Teacher,
    processes: Processes,
    data: TrainingData,
    loss: DistillationLoss,
    step: int,
) -> str:
    """What is about to be trained, and on what."""
    train, stds = config.train, loss.stds.flatten().tolist()
    theirs, ours = teacher.encoder_parameters / 1e6, parameter_count(networks.encoder) / 1e6
    average = f", averaged at {train.ema_decay:g}" if train.ema_decay else ""
    names = {"perceptual": getattr(loss.perceptual, "name", "perceptual")}
    weights = ", ".join(f"{names.get(name, name)} {weight:g}" for name, weight in config.loss.weights.items() if weight)
    decoder = (
        "the decoder stays the teacher's"
        if train.decoder_start is None
        else f"the decoder learns from step {train.decoder_start} on, at {train.decoder_rate:g}"
    )
    return "\n".join(
        [
            f"teacher   {teacher.name}, a {type(teacher.model).__name__}: encoder {theirs:.2f} M, "
            f"{teacher.latent_channels} latent channels with means of std {min(stds):.3g} to {max(stds):.3g}",
            f"student   LiteVAE-{config.model.size.upper()}: encoder {ours:.2f} M; {decoder}",
            f"losses    {weights}",
            f"images    {data.description} to train on, {len(list(data.held_out))} held out",
            f"training  steps {step} to {train.steps}, {train.batch_size} crops of {config.data.crop_size} pixels, "
            f"Adam at {train.learning_rate:g}{average}, {train.precision}, {processes.place}",
        ]
    )


def conclusion(folder: DistillationFolder, comparison: Comparison) -> str:
    """What was reached, beside the teacher, and the files that were written."""
    before = folder.evaluations()[0]
    means, latents = comparison.means, comparison.latents.values()
    rows = [
        ("before training", before["psnr"], before["psnr_to_teacher"], before["latent_error"]),
        ("after training", means["psnr"], means["psnr_to_teacher"], latents["latent_error"]),
    ]
    lines = [f"{'':<15}   {'PSNR':>8}   {'to the teacher':>14}   {'latent error':>12}"]
    lines += [f"{name:<15}   {psnr:>5.2f} dB   {to:>11.2f} dB   {error:>12.4f}" for name, psnr, to, error in rows]
    lines.append(f"{'teacher':<15}   {means['teacher_psnr']:>5.2f} dB")
    return "\n".join(
        [
            "",
            *lines,
            f"cosine by channel {', '.join(f'{cosine:.3f}' for cosine in latents['cosines'])}; "
            f"KL {latents['kl']:.3g} nats an element",
            "",
            f"written   {folder.path}: model/ (a HybridAutoencoder), {folder.pictures.name}, {folder.curves.name}, "
            f"{folder.metrics.name}",
            f"use it    pipeline.vae = HybridAutoencoder.from_pretrained({str(folder.model)!r})",
        ]
    )


def write_curves(folder: DistillationFolder) -> None:
    """The losses, and the held-out PSNR beside the teacher's, over the steps."""
    import matplotlib

    with matplotlib.rc_context(STYLE), replacing(folder.curves) as temporary:
        save_figure(_curves(folder.read_metrics()), temporary)


def _curves(metrics: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    losses, quality = figure.subplots(1, 2)
    training = [line for line in metrics if line["kind"] == "train"]
    evaluations = [line for line in metrics if line["kind"] == "evaluation"]
    draw_losses(losses, training)

    quality.set_title("Held-out PSNR (dB)")
    steps, last = [line["step"] for line in evaluations], evaluations[-1]
    teacher = last["teacher_psnr"]
    quality.hlines(teacher, 0, max(max(steps), 1), color=GRAY, linestyle=(0, (4, 3)), linewidth=1.2)
    ends = [((max(max(steps), 1), teacher), f"teacher {teacher:.2f}", GRAY)]
    for key, name, colour in (("psnr", "student", BLUE), ("psnr_to_teacher", "student to teacher", ORANGE)):
        quality.plot(steps, [line[key] for line in evaluations], color=colour, linewidth=1.8, marker="o", markersize=4)
        ends.append(((steps[-1], last[key]), f"{name} {last[key]:.2f}", colour))
    quality.set(xlabel="step")
    label_ends(quality, ends)
    return figure


def write_pictures(path: Path, comparison: Comparison, step: int) -> None:
    """A row for each held-out image: original, by the teacher, by the student."""
    import matplotlib

    means = comparison.means
    title = (
        f"After {step:,} steps: student {means['psnr']:.2f} dB, teacher {means['teacher_psnr']:.2f} dB (means of "
        f"{len(comparison.scores)})"
    )
    with matplotlib.rc_context(STYLE), replacing(path) as temporary:
        save_figure(_pictures(comparison, title), temporary)


def _pictures(comparison: Comparison, title: str) -> Any:
    from matplotlib.figure import Figure

    column, caption, gap, header = 4.0, 0.34, 0.12, 0.62  # inches
    heights = [column * pair.original.shape[-2] / pair.original.shape[-1] for pair in comparison.pairs]
    width, total = 3 * column + 4 * gap, header + sum(heights) + len(heights) * (caption + gap)
    figure = Figure(figsize=(width, total))
    figure.text(gap / width, 1 - 0.40 / total, title, fontsize=15, fontweight="bold", va="center")
    top = total - header
    for pair, height in zip(comparison.pairs, heights, strict=True):
        panels = [
            (pair.original, f"{Path(pair.name).with_suffix('')}"),
            (pair.by_teacher, f"teacher {pair.teacher_psnr:.2f} dB"),
            (pair.by_student, f"student {pair.psnr:.2f} dB · to the teacher {pair.psnr_to_teacher:.2f} dB"),
        ]
        top -= caption
        for index, (image, head) in enumerate(panels):
            left = gap + index * (column + gap)
            axes = figure.add_axes((left / width, (top - height) / total, column / width, height / total))
            axes.imshow(np.asarray(to_image(image)), interpolation="antialiased")
            axes.set_axis_off()
            axes.annotate(head, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontweight="bold")
        top -= height + gap
    return figure
