"""What does the encoder cost in a step of latent diffusion, where images are encoded on the fly?

image -> [frozen encoder -> latent -> noise -> network -> loss]

    python -m benchmarks.diffusion_step              # LDM's UNet, one image of 256x256; two minutes on two cores
    python -m benchmarks.diffusion_step --batch 16   # on a GPU

One update of LDM's UNet (274 M parameters, on latents of 32x32x4) as `litevae.train` makes it: noise, forward,
backward, Adam. With latents that are there already, and with latents that the encoder of LiteVAE-S, LiteVAE-B or Stable
Diffusion's VAE makes of the images first. All have the same network and take turns. Weights are random.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import figures
from benchmarks.harness import report
from benchmarks.harness.measure import DEVICE, clock
from benchmarks.harness.report import RESULTS, Column, Measured, Table
from litevae import LiteVAE, StableDiffusionVAE
from litevae.cost import LiveTensors
from litevae.data.config import DataConfig
from litevae.diffusion.config import AutoencoderConfig, DiffusionConfig, DiffusionTrainConfig, NetworkConfig
from litevae.diffusion.dry_run import PASSES, encoder_macs, network_costs
from litevae.diffusion.latents import NO_CLASS, LatentBatch, Latents
from litevae.diffusion.networks import DiffusionNetworks
from litevae.diffusion.noise import noising
from litevae.diffusion.update import DiffusionUpdate
from litevae.evaluation.autoencoders import EvaluatedAutoencoder
from litevae.runs.processes import Processes
from litevae_kernels.files import check_folder

SIZE, CHANNELS = 256, 4
CACHED = "cached latents"
AUTOENCODERS: dict[str, Callable[[], Any]] = {
    "LiteVAE-S": lambda: LiteVAE.from_preset("S"),
    "LiteVAE-B": lambda: LiteVAE.from_preset("B"),
    "SD-VAE": StableDiffusionVAE.from_architecture,
}
ROWS = (CACHED, *AUTOENCODERS)


def table(batch: int, network: NetworkConfig) -> Table:
    parameters, _ = network_costs(network, CHANNELS, SIZE // 8)
    return Table(
        name="diffusion_step",
        title="A step of latent diffusion, with latents cached or encoded on the fly",
        settings={
            "network": f"UNet2DModel, {parameters / 1e6:.0f} M parameters",
            "images": f"{batch} of {SIZE}x{SIZE}, latents of {SIZE // 8}x{SIZE // 8}x{CHANNELS}",
            "dtype": "float32",
        },
        columns=[
            Column("row", "latents"),
            Column("encoder_gmac", "encoder, GMAC"),
            Column("network_gmac", "network's step, GMAC"),
            Column("mac_share", "encoder's share", ".0%"),
            Column("seconds", "s / step", ".3g"),
            Column("time_share", "encoder's share", ".0%"),
            Column("live_mb", "live tensors, MB", ".0f"),
            Column("rounds", "rounds", "d"),
        ],
        order=list(ROWS),
        notes=[
            f"The network's step counts {PASSES} times its forward pass: backward is twice as much.",
            "Times: medians over rounds in which every row has a turn. The share of time is what a step takes longer "
            "than with cached latents, by the median of the paired differences.",
            "Live tensors: most bytes alive in a step, with the network's parameters, gradients and Adam's moments and "
            "the encoder's parameters.",
        ],
    )


class Step:
    """One update, with `content` as a batch has it: pixels, or the moments of a cache."""

    def __init__(self, update: DiffusionUpdate, content: Tensor) -> None:
        self.update = update
        self.batch = LatentBatch(content, torch.full((len(content),), NO_CLASS, device=content.device))

    def __call__(self) -> None:
        self.update(self.batch, 0)


def steps(batch: int, network: NetworkConfig) -> dict[str, Step]:
    """A step for every row, on one network with one optimizer."""
    torch.manual_seed(0)
    config = DiffusionConfig(
        autoencoder=AutoencoderConfig(path="random weights"),
        network=network,
        data=DataConfig(crop_size=SIZE, evaluation_size=SIZE),
        train=DiffusionTrainConfig(batch_size=batch, ema_decay=0.0),
    )
    processes = Processes(DEVICE.type)
    networks = DiffusionNetworks(config, CHANNELS, SIZE // 8, processes)
    pixels = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8, device=DEVICE)
    made = {}
    for name, build in AUTOENCODERS.items():
        model = EvaluatedAutoencoder(build().to(DEVICE).requires_grad_(False), name)
        latents = Latents(model, (0.0,) * CHANNELS, (1.0,) * CHANNELS, True, 0)
        made[name] = DiffusionUpdate(config, latents, noising(config.noise), networks, processes)
    moments = torch.randn(batch, 2 * CHANNELS, SIZE // 8, SIZE // 8, device=DEVICE)
    return {CACHED: Step(made["LiteVAE-S"], moments), **{name: Step(update, pixels) for name, update in made.items()}}


def live_mb(step: Step, encodes: bool) -> float:
    """Most MB alive in a step, once the optimizer has its moments."""
    learner = step.update.networks.learner
    held: list[Any] = [*learner.network.parameters()]
    held += [moment for state in learner.optimizer.state.values() for moment in state.values()]
    if encodes:
        held += list(step.update.latents.autoencoder.model.encoder.parameters())
    with LiveTensors() as tensors:
        tensors.hold(held)
        step()
    return tensors.peak_bytes / 1e6


def measure(made: dict[str, Step], rounds: int) -> dict[str, dict[str, Any]]:
    """The measured columns of every row, by its name."""
    for step in made.values():  # a first call allocates
        step()
    times: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, step in made.items():
            start = clock()
            step()
            times[name].append(clock() - start)
    rows = {}
    for name, taken in times.items():
        longer = median(own - cached for own, cached in zip(taken, times[CACHED], strict=True))
        row: dict[str, Any] = {
            "seconds": median(taken),
            "rounds": rounds,
            "live_mb": live_mb(made[name], name != CACHED),
        }
        if name != CACHED:
            row["time_share"] = longer / median(taken)
        rows[name] = row
    return rows


def costs(name: str, network: NetworkConfig) -> dict[str, Any]:
    """The counted columns of a row, for one image."""
    macs = PASSES * network_costs(network, CHANNELS, SIZE // 8)[1]
    if name == CACHED:
        return {"network_gmac": macs / 1e9}
    encoder = encoder_macs(AUTOENCODERS[name](), SIZE)
    return {"network_gmac": macs / 1e9, "encoder_gmac": encoder / 1e9, "mac_share": encoder / (encoder + macs)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then write the table and the figure to the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diffusion_step", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1, help="images of a step (1)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of every row that are timed (5)")
    parser.add_argument("--channels", type=int, default=224, help="width of the UNet (LDM's 224)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table and the figure go")
    arguments = parser.parse_args(argv)
    network = NetworkConfig(unet_channels=arguments.channels)
    check_folder("--results", arguments.results)
    command = ["python", "-m", "benchmarks.diffusion_step", *(sys.argv[1:] if argv is None else argv)]
    measured = Measured(table(arguments.batch, network))
    conditions = report.conditions(shlex.join(command))
    for name, row in measure(steps(arguments.batch, network), arguments.rounds).items():
        measured.rows[name] = {"row": name, **costs(name, network), **row}
    document = report.document(measured, conditions)
    print(report.markdown(document))
    print(report.write(document, arguments.results))
    figures.write(arguments.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
