"""`--dry-run`: the whole config, what a step costs, and a look at the data; nothing is trained."""

import os
from pathlib import Path

import torch

from litevae.data import open_data
from litevae.losses.perceptual import build_perceptual
from litevae.models.discriminators import build_discriminator
from litevae.runs.processes import check_shares
from litevae.runs.recipes import to_yaml
from litevae.training.config import RunConfig
from litevae.training.estimate import Estimate, estimate
from litevae.training.networks import build_autoencoder, check_discriminator, freeze
from litevae.training.report import AutoencoderFolder
from litevae.training.snapshot import check_start

MIB = 2**20


def dry_run(config: RunConfig) -> int:
    """Print what the run would be, or raise what would end it at its start; returns the exit code, 0."""
    AutoencoderFolder(Path(config.run.dir or "").expanduser()).check_free(config)
    if config.train.start_from is not None:
        check_start(Path(config.train.start_from).expanduser())
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun and accelerate
    check_shares(config.train.batch_size, config.train.accumulation, processes)
    if config.has_discriminator:
        check_discriminator(config)
    if os.environ.get("RANK", "0") != "0":
        return 0
    print(to_yaml(config))
    print(costs(config, processes))
    print(data_lines(config))
    print("nothing was trained or written; leave out --dry-run to start")
    return 0


def costs(config: RunConfig, processes: int) -> str:
    """Parameters, arithmetic and memory of a step, as lines."""
    train = config.train
    per_process = train.batch_size // processes // train.accumulation
    perceptual = build_perceptual(config.perceptual) if config.loss.perceptual_weight else None
    with torch.device("meta"):
        model = build_autoencoder(config.model)
        freeze(model, train.freeze)
        discriminator = build_discriminator(config.discriminator) if config.has_discriminator else None
    if train.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    accumulates, distributes = train.accumulation > 1, processes > 1
    needed = estimate(
        config, model, discriminator, perceptual, per_process, accumulates=accumulates, distributes=distributes
    )
    return "\n".join([*_network_lines(needed), *_memory_lines(needed, per_process, processes)])


def _network_lines(needed: Estimate) -> list[str]:
    rows = [
        ("encoder", f"{needed.encoder_parameters:,}", needed.encoder_macs),
        ("decoder", f"{needed.decoder_parameters:,}", needed.decoder_macs),
        ("discriminator", f"{needed.discriminator_parameters:,}", needed.discriminator_macs),
        ("perceptual", "frozen", needed.perceptual_macs),
    ]
    lines = [f"{'network':<14} {'parameters':>12} {'GMAC, forward of a crop':>25}"]
    for name, parameters, macs in rows:
        if macs or name == "encoder":  # which may be the wavelets alone
            lines.append(f"{name:<14} {parameters:>12} {macs / 1e9:>25.2f}")
    return lines


def _memory_lines(needed: Estimate, crops: int, processes: int) -> list[str]:
    parts = [
        ("parameters", needed.parameter_bytes),
        ("Adam", needed.optimizer_bytes),
        ("average", needed.average_bytes),
        ("gradients", needed.gradient_bytes),
        ("activations", needed.activation_bytes),
    ]
    shown = ", ".join(f"{name} {size / MIB:,.0f}" for name, size in parts if size)
    where = "" if processes == 1 else f" in each of {processes} processes"
    return [
        "",
        f"memory of a step with {crops} crops at once{where}, about: {needed.total_bytes / MIB:,.0f} MiB ({shown})",
    ]


def data_lines(config: RunConfig) -> str:
    """Open the data as a run would, read one batch and the held-out images."""
    data = open_data(config.data, config.train.seed)
    batch = next(iter(data.batches(0, 1, config.train.batch_size)))
    sizes = [tuple(item.image.shape[1:]) for item in data.held_out]
    held_out = ", ".join(f"{width}x{height}" for height, width in sorted(set(sizes)))
    lines = [
        "",
        f"images to train on: {data.description}; a batch of {'x'.join(map(str, batch.shape))} was read, "
        f"mean {batch.float().mean():.0f} of 255",
        f"held out: {len(sizes)} ({held_out})",
    ]
    if data.skipped.total:
        lines.append(f"skipped: {', '.join(f'{count} {kind}' for kind, count in data.skipped.by_kind().items())}")
    return "\n".join(lines)
