"""`--dry-run` of a distillation: the whole config, and what a step costs in arithmetic, memory and time.

image -> [teacher's encoder]; image -> [student's encoder -> decoder -> losses]
"""

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from litevae.cost import LiveTensors, copy_shapes, multiply_accumulates
from litevae.data import open_data
from litevae.distillation.config import DistillationConfig
from litevae.distillation.losses import DistillationLoss
from litevae.distillation.networks import Decoding, build_student
from litevae.distillation.report import DistillationFolder
from litevae.distillation.teacher import Teacher, open_teacher
from litevae.distillation.trainer import DistillationTrainer
from litevae.distillation.update import DistillationUpdate
from litevae.losses.perceptual import build_perceptual
from litevae.models.hybrid import HybridAutoencoder
from litevae.runs.processes import check_shares
from litevae.runs.recipes import to_yaml

MIB = 2**20
# Published peaks in TFLOP/s, dense, with bf16 matrix products; convolutions of this size reach about a third.
GPUS = {"A100": 312, "H100": 989}
SHARE_OF_PEAK = 0.3


@dataclass(frozen=True)
class Costs:
    """Of one crop, in multiply-accumulates; forward passes."""

    teacher_macs: int
    student_macs: int
    decoder_macs: int
    perceptual_macs: int

    def step_macs(self, config: DistillationConfig) -> int:
        """What one crop costs in a step: backward passes through weights that learn count twice, through others once.

        The teacher's encoder has no backward pass; LPIPS sees two images, of which one has a backward pass.
        """
        total = self.teacher_macs + 3 * self.student_macs
        if config.loss.decodes:
            total += (2 if config.train.decoder_start is None else 3) * self.decoder_macs
        return total + (3 * self.perceptual_macs // 2 if config.loss.perceptual_weight else 0)


def dry_run(config: DistillationConfig) -> int:
    """Print what the run would be, or raise what would end it at its start; returns the exit code, 0."""
    DistillationFolder(Path(config.run.dir or "").expanduser()).check_free(config)
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun and accelerate
    check_shares(config.train.batch_size, config.train.accumulation, processes)
    teacher = open_teacher(config, DistillationTrainer.load_autoencoder)
    data = open_data(config.data, config.train.seed)
    if os.environ.get("RANK", "0") != "0":
        return 0
    print(to_yaml(config))
    print(costs(config, teacher, processes))
    print(f"\nimages    {data.description} to train on, {len(list(data.held_out))} held out")
    print("nothing was trained or written; leave out --dry-run to start")
    return 0


def costs(config: DistillationConfig, teacher: Teacher, processes: int) -> str:
    """Parameters and arithmetic of both encoders, memory of a step, an estimate of the run's time; as lines."""
    student = build_student(config.model, teacher)
    perceptual = build_perceptual(config.perceptual) if config.loss.perceptual_weight else None
    found = count(teacher.model, student, perceptual, config.data.crop_size)
    counts = (
        teacher.encoder_parameters,
        *(sum(map(Tensor.numel, part)) for part in (student.encoder_parameters(), student.decoder_parameters())),
    )
    rows = [
        ("teacher's encoder", f"{counts[0]:,}", found.teacher_macs),
        ("student's encoder", f"{counts[1]:,}", found.student_macs),
        ("decoder", f"{counts[2]:,}", found.decoder_macs),
        *([("perceptual", "frozen", found.perceptual_macs)] if perceptual is not None else []),
    ]
    size, train = config.data.crop_size, config.train
    lines = [f"{'network':<18} {'parameters':>12} {f'GMAC, forward of {size}x{size}':>26}"]
    lines += [f"{name:<18} {parameters:>12} {macs / 1e9:>26.2f}" for name, parameters, macs in rows]
    crops = train.batch_size // processes // train.accumulation
    held, peak = memory(config, teacher.model, student, perceptual, crops)
    where = "" if processes == 1 else f" in each of {processes} processes"
    lines.append(
        f"\nmemory of a step with {crops} crops at once{where}, about: {(held + peak) / MIB:,.0f} MiB "
        f"(optimizer and average {held / MIB:,.0f}, networks and activations {peak / MIB:,.0f})"
    )
    operations = 2 * found.step_macs(config) * train.batch_size * train.steps
    hours = {gpu: operations / (peak * 1e12 * SHARE_OF_PEAK) / 3600 for gpu, peak in GPUS.items()}
    lines.append(
        f"time of the {train.steps:,} steps, by arithmetic alone at {SHARE_OF_PEAK:.0%} of a GPU's peak in bf16, not "
        f"measured: {', '.join(f'{value:,.1f} hours of one {gpu}' for gpu, value in hours.items())}"
    )
    return "\n".join(lines)


def count(teacher: Any, student: HybridAutoencoder, perceptual: nn.Module | None, size: int) -> Costs:
    """Arithmetic of one crop of size x size, on meta tensors."""
    meta = torch.device("meta")
    image = torch.empty(1, 3, size, size, device=meta)
    latent = torch.empty(1, student.latent_channels, size // 8, size // 8, device=meta)
    theirs, ours = copy_shapes(teacher, meta), copy_shapes(student, meta)
    with torch.no_grad():
        return Costs(
            multiply_accumulates(theirs.encode, image),
            multiply_accumulates(ours.encode, image),
            multiply_accumulates(ours.decode, latent),
            0 if perceptual is None else multiply_accumulates(copy_shapes(perceptual, meta), image, image),
        )


def memory(
    config: DistillationConfig, teacher: Any, student: HybridAutoencoder, perceptual: nn.Module | None, crops: int
) -> tuple[int, int]:
    """(bytes of Adam's moments and the average, most bytes of networks, gradients and activations in a step).

    Found with fake tensors, without allocating any of it.
    """
    tunes = config.train.decoder_start is not None
    learning = [*student.encoder_parameters(), *(student.decoder_parameters() if tunes else ())]
    held = sum(2 * parameter.nbytes for parameter in learning)
    if config.train.ema_decay:
        held += sum(parameter.nbytes for parameter in student.parameters())
    tensors = LiveTensors()
    with FakeTensorMode(allow_non_fake_inputs=True):
        cpu = torch.device("cpu")
        theirs = Teacher(copy_shapes(teacher, cpu), "", dtype=config.teacher.autocast_dtype)
        ours = copy_shapes(student, cpu).train()
        decoding = Decoding(ours).eval().requires_grad_(tunes)
        compared = None if perceptual is None else copy_shapes(perceptual, cpu)
        loss = DistillationLoss(config.loss, torch.ones(student.latent_channels), compared)
        tensors.hold([*theirs.model.parameters(), *ours.parameters(), *loss.parameters()])
        alone: Any = SimpleNamespace(share_of=lambda batch_size, _: batch_size)
        update = DistillationUpdate(config, theirs, _fake_networks(ours, decoding), loss, alone)
        with tensors:
            size = config.data.crop_size
            update.backward(torch.empty(crops, 3, size, size, dtype=torch.uint8), tunes)
    return held, tensors.peak_bytes


def _fake_networks(model: Any, decoding: nn.Module) -> Any:
    """What the update's backward pass uses of `DistillationNetworks`."""

    def backward(loss: Tensor) -> None:
        loss.backward()

    student = SimpleNamespace(distributed=model.encoder, backward=backward)
    return SimpleNamespace(student=student, decoding=decoding, decoder=SimpleNamespace(distributed=decoding))
