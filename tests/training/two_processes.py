"""What two processes over gloo do, for test_processes.py, which starts this with torchrun. Not a test by itself.

    torchrun --nproc-per-node 2 two_processes.py FOLDER

Each process takes steps of a tiny model with every loss, and writes what it has to FOLDER/rank-R.pt.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from litevae.runs.processes import Processes
from litevae.runs.recipes import build_config
from litevae.training.config import RunConfig
from litevae.training.networks import Networks
from litevae.training.update import Update

CONFIG: dict[str, dict[str, Any]] = {
    "model": {
        "size": "S",
        "extraction_channels": 4,
        "extraction_multipliers": [1],
        "aggregation_channels": 4,
        "aggregation_multipliers": [1],
        "block_out_channels": [4, 4, 4, 4],
        "layers_per_block": 1,
    },
    "data": {"crop_size": 32},
    "loss": {"adversarial_weight": 0.5, "adversarial_start": 1},
    "discriminator": {"channels": 2, "resolution": 32, "r1_weight": 1.0, "r1_every": 2},
    "train": {"batch_size": 4, "device": "cpu", "initialization": "pytorch", "ema_decay": 0.5},
}
# Eq. (2) weighs each slice by itself, and the slices of two processes are other samples than those of one.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "accumulation": {"train": {"accumulation": 2}},
    "adaptive": {"loss": {"adversarial_weighting": "adaptive"}},
    "freeze": {"train": {"freeze": "encoder", "start_from": "x", "gradient_ratio_every": 2}},
}
STEPS = 4


def config(variant: str) -> RunConfig:
    values: Any = OmegaConf.merge(OmegaConf.create(CONFIG), OmegaConf.create(VARIANTS[variant]))
    return build_config(RunConfig, values, (), "test")


def batch(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)


def run(processes: Processes, variant: str) -> dict[str, Any]:
    """Gradients of every step as plain SGD shows them: the weights after it."""
    networks = Networks(config(variant), processes)
    for learner in networks.learners:
        learner.optimizer = torch.optim.SGD(learner.network.parameters(), lr=0.05, fused=True)
    update = Update(config(variant), networks, processes)
    terms = []
    for step in range(STEPS):
        mine = batch(step).chunk(processes.world_size)[processes.rank]
        terms.append({name: processes.average(value) for name, value in update(mine, step).items()})
    return {
        "terms": terms,
        "networks": [learner.network.state_dict() for learner in networks.learners],
        "ema": networks.ema.state_dict() if networks.ema is not None else {},
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    processes = Processes("cpu")
    result: dict[str, Any] = {variant: run(processes, variant) for variant in VARIANTS}
    result["any"] = [processes.any(processes.rank == 1), processes.any(False)]
    result["gathered"] = processes.gather({"rank": processes.rank})
    torch.save(result, folder / f"rank-{processes.rank}.pt")
    processes.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
