"""`--dry-run` of a diffusion model: the whole config, and what a step costs, with and without the encoder in it.

image -> [frozen encoder -> latent -> noise -> network]
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from litevae.cost import multiply_accumulates, parameter_count
from litevae.diffusion.config import DiffusionConfig, NetworkConfig
from litevae.diffusion.networks import Denoiser, build_network
from litevae.diffusion.report import DiffusionFolder
from litevae.diffusion.trainer import DiffusionTrainer
from litevae.runs.processes import Processes
from litevae.runs.recipes import to_yaml

PASSES = 3
"""Of a step of training: the forward pass, and twice its arithmetic backwards."""


def dry_run(config: DiffusionConfig) -> int:
    """Print what the run would be, or raise what would end it at its start; returns the exit code, 0."""
    folder = DiffusionFolder(Path(config.run.dir or "").expanduser())
    folder.check_free(config)
    run = DiffusionTrainer(config, folder, Processes("cpu"))
    if config.train.start_from is not None:
        run.start_from(Path(config.train.start_from))
    print(to_yaml(config))
    print(costs(run))
    print(f"data      {run.data.description}")
    print("nothing was trained or written; leave out --dry-run to start")
    return 0


def costs(run: DiffusionTrainer) -> str:
    """Parameters and arithmetic of a step, as lines."""
    channels, side, config = run.autoencoder.latent_channels, run.side, run.config
    parameters, macs = network_costs(config.network, channels, side)
    shape = f"{channels}x{side}x{side}"
    lines = [f"network   {parameters:,} parameters, {macs / 1e9:.2f} GMAC for a latent of {shape}, forward"]
    if config.autoencoder.cache is None:
        size = config.data.crop_size
        encoder = encoder_macs(run.autoencoder.model, size)
        share = encoder / (encoder + PASSES * macs)
        lines.append(
            f"encoder   {encoder / 1e9:.2f} GMAC for an image of {size}x{size}: {share:.0%} of a step's arithmetic; "
            "none with autoencoder.cache"
        )
    return "\n".join(lines)


def network_costs(config: NetworkConfig, channels: int, side: int) -> tuple[int, int]:
    """(parameters, multiply-accumulates of a forward pass of one latent) of a network, on meta tensors."""
    with torch.device("meta"):
        denoiser = Denoiser(build_network(config, channels, side), config.classes).eval()
        latent, time, label = torch.empty(1, channels, side, side), torch.empty(1), torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            macs = multiply_accumulates(lambda x: denoiser(x, time, label), latent)
    return parameter_count(denoiser), macs


def encoder_macs(autoencoder: nn.Module, size: int) -> int:
    """Multiply-accumulates of encoding one image of size x size, on meta tensors."""
    model: Any = nn.Module.to(copy.deepcopy(autoencoder), "meta")
    with torch.no_grad():
        return multiply_accumulates(model.encode, torch.empty(1, 3, size, size, device="meta"))
