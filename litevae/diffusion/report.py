"""What a diffusion run says about itself: the lines at its start and end, its curves, its grids of samples."""

import math
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from litevae.cost import parameter_count
from litevae.data.images import to_image
from litevae.diffusion.config import METRICS, DiffusionConfig
from litevae.diffusion.data import DiffusionData
from litevae.diffusion.latents import Latents
from litevae.diffusion.networks import DiffusionNetworks
from litevae.evaluation.figures import BLUE, GRAY, ORANGE, STYLE, label_ends, save_figure
from litevae.runs.processes import Processes
from litevae.runs.run_folder import RunFolder
from litevae_kernels.files import replacing


class DiffusionFolder(RunFolder):
    """A run folder with a diffusion model's figures.

    grids/                 step-XXXXXX.png: samples from the same noise
    loss.png               the curves of metrics.jsonl
    samples.png            the last of the grids, beside as many crops of the data where it was trained on images
    model/                 a diffusers pipeline, the autoencoder included: DiffusionPipeline.from_pretrained reads it
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.grids = path / "grids"
        self.curves = path / "loss.png"
        self.samples = path / "samples.png"


def introduction(
    config: DiffusionConfig,
    networks: DiffusionNetworks,
    processes: Processes,
    data: DiffusionData,
    latents: Latents,
    shape: tuple[int, int, int],
    step: int,
) -> str:
    """What is about to be trained, and on what."""
    train, own = config.train, latents.autoencoder
    average = f", averaged at {train.ema_decay:g}" if train.ema_decay else ""
    classes = f", {len(data.classes):,} classes" if config.network.classes and data.classes else ", no classes"
    stds = latents.stds
    return "\n".join(
        [
            f"network   {config.network.kind}, {parameter_count(networks.model) / 1e6:.2f} M parameters{classes}",
            f"latents   {'x'.join(map(str, shape))} of {own.label} ({type(own.model).__name__}), "
            f"std {min(stds):.3g} to {max(stds):.3g} brought to 1",
            f"data      {data.description}",
            f"noise     {config.noise.objective}, {config.noise.times} times; "
            f"samples by {config.sampling.sampler_for(config.noise.objective)} in {config.sampling.steps} steps",
            f"training  steps {step} to {train.steps}, batches of {train.batch_size}, Adam at {train.learning_rate:g}"
            f"{average}, {train.precision}, {processes.place}",
        ]
    )


def conclusion(folder: DiffusionFolder) -> str:
    """The validation loss before and after, and the files that were written."""
    evaluations = folder.evaluations()
    before, after = evaluations[0], evaluations[-1]
    distances = [
        f"{name.upper():<9} {before[name]:.4g} before training, {after[name]:.4g} after it, of "
        f"{after['measured_images']:,} samples against as many crops of the data"
        for name in METRICS
        if name in before and name in after and before.get("measured_images") == after["measured_images"]
    ]
    return "\n".join(
        [
            "",
            f"validation loss {before['validation_loss']:.4f} before training, {after['validation_loss']:.4f} after it",
            *distances,
            f"written   {folder.path}: model/ (a diffusers pipeline), {folder.samples.name}, {folder.curves.name}, "
            f"{folder.metrics.name}",
            f"use it    DiffusionPipeline.from_pretrained({str(folder.model)!r})",
        ]
    )


def write_samples(path: Path, images: Tensor, data: Tensor | None = None, gap: int = 4) -> None:
    """Images [N, 3, H, W] in [-1, 1] as a grid, as square as it can be; beside it one of `data`, as many."""
    grids = [_grid(part, gap) for part in (images, data) if part is not None]
    picture = Image.new("RGB", (sum(grid.width + 6 * gap for grid in grids) - 6 * gap, grids[0].height), "white")
    for number, grid in enumerate(grids):
        picture.paste(grid, (number * (grid.width + 6 * gap), 0))
    with replacing(path) as temporary:
        picture.save(temporary)


def _grid(images: Tensor, gap: int) -> Image.Image:
    columns = math.ceil(math.sqrt(len(images)))
    height, width = (side + gap for side in images.shape[-2:])
    rows = math.ceil(len(images) / columns)
    grid = Image.new("RGB", (columns * width - gap, rows * height - gap), "white")
    for place, image in enumerate(images):
        grid.paste(to_image(image), (place % columns * width, place // columns * height))
    return grid


def write_curves(folder: DiffusionFolder) -> None:
    """Training loss and validation loss over the steps; the last validation by level of noise."""
    import matplotlib

    with matplotlib.rc_context(STYLE), replacing(folder.curves) as temporary:
        save_figure(_curves(folder.read_metrics()), temporary)


def _curves(metrics: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    losses, levels = figure.subplots(1, 2)
    training = [(line["step"], line["loss"]["total"]) for line in metrics if line["kind"] == "train"]
    evaluations = [line for line in metrics if line["kind"] == "evaluation"]
    validation = [(line["step"], line["validation_loss"]) for line in evaluations]
    losses.set_title("Mean squared error of the prediction")
    ends = []
    for name, points, colour in (("training", training, BLUE), ("validation", validation, ORANGE)):
        points = [point for point in points if point[1] is not None]
        if points:
            losses.plot(*zip(*points, strict=True), color=colour, linewidth=1.8)
            ends.append((points[-1], f"{name} {points[-1][1]:.3g}", colour))
    losses.set(xlabel="step", yscale="log")
    label_ends(losses, ends)
    levels.set_title("Validation by level of noise")
    ends = []
    for line, colour in ((evaluations[0], GRAY), (evaluations[-1], ORANGE)):
        shares = [(index + 0.5) / len(line["levels"]) for index in range(len(line["levels"]))]
        levels.plot(shares, line["levels"], color=colour, linewidth=1.8, marker="o", markersize=4)
        ends.append(((shares[-1], line["levels"][-1]), f"step {line['step']:,}", colour))
    levels.set(xlabel="share of the way from latent (0) to noise (1)", yscale="log")
    label_ends(levels, ends)
    return figure
