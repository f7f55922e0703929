"""Samples of a finished diffusion run, batch by batch: to files, and measured against data.

noise -> [network, step by step -> latent -> frozen decoder] -> files, FID, FWD
"""

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from litevae.data import DataError, open_images, protocol
from litevae.data.images import to_image
from litevae.diffusion.config import DIT_CLASSES, DiffusionConfig, SamplingConfig
from litevae.diffusion.networks import Denoiser
from litevae.diffusion.report import write_samples
from litevae.diffusion.sample_quality import SampleQuality, other_crops
from litevae.diffusion.sample_request import ENDING, OWN_DATA, SampleRequest
from litevae.diffusion.sampling import draw, with_sampler
from litevae.diffusion.update import gaussian
from litevae.evaluation.autoencoders import EvaluatedAutoencoder, config_of
from litevae.evaluation.weights import WeightSource
from litevae.losses.weight_files import WeightsError
from litevae.pixels import to_float, to_uint8
from litevae.runs.processes import Processes
from litevae.runs.run_folder import RunFolder
from litevae.seeds import derive_seed
from litevae_kernels.checks import check_number, wrong_value
from litevae_kernels.files import check_file, check_folder, replacing, unused

MOST_IN_GRID = 1024
_NAMES = {"fid": "FID", "fwd": "FWD"}
Load = Callable[[str, str | None], nn.Module]
NOTE = (
    "{images:,} samples and as many images, each {size}x{size} by protocol ldm; published FIDs take 50,000 samples and "
    "the whole training set. Table 7 prints FID 8.03 (FFHQ 256) and 5.73 (CelebA-HQ 256) for LiteVAE, 8.11 and 5.92 "
    "for LDM, whose own paper prints 4.98 and 5.11; why these differ is not known"
)


class Sampler:
    """A diffusers pipeline's parts, as a run leaves them, on a device.

    Raises:
        FileNotFoundError, ValueError: no finished run, or a request that its model cannot have.
    """

    def __init__(self, request: SampleRequest, load: Load, device: torch.device) -> None:
        import diffusers

        folder = _pipeline_folder(request.run)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind, vae = ("transformer", "vae") if "transformer" in index else ("unet", "vqvae")
        network = getattr(diffusers, index[kind][1]).from_pretrained(folder / kind).to(device).eval()
        self.autoencoder = EvaluatedAutoencoder(load(str(folder), vae).to(device), str(request.run))
        labels = {int(number): name for number, name in (index.get("id2label") or {}).items()}
        self.classes = {number: name for number, name in labels.items() if number != DIT_CLASSES}
        guided = bool(self.classes)
        self.denoiser = Denoiser(network, guided)
        self.device, self.labels = device, self._labels(request.label) if guided else [DIT_CLASSES]
        side = int(network.config.sample_size)
        self.shape = (int(network.config.in_channels), side, side)
        self.size = side * self.autoencoder.downsampling
        self.factor, self.seed = float(config_of(self.autoencoder.model).scaling_factor), request.seed
        self.sampling = _sampling(request)
        if not guided and (self.sampling.guidance > 1 or request.label is not None):
            argument = "--guidance" if request.label is None else "--class"
            raise wrong_value(argument, "be left out for a model without classes", request.label or request.guidance)
        saved = getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / "scheduler")
        self.scheduler = with_sampler(saved, request.sampler, self.sampling.eta)

    def __call__(self, numbers: range) -> Tensor:
        """Images [B, 3, size, size] in [-1, 1]; each a function of (seed, its number)."""
        labels = torch.tensor([self.labels[number % len(self.labels)] for number in numbers], device=self.device)
        seeds = [derive_seed(self.seed, "noise on the way", number) for number in numbers]
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        return self.decode(draw(self.denoiser, self.scheduler, self.sampling, self.noise(numbers), labels, generators))

    def noise(self, numbers: range) -> Tensor:
        """Where samples begin: [B, C, h, w]."""
        return gaussian(torch.empty(len(numbers), *self.shape, device=self.device), self.seed, "sample", numbers)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents at unit scale, one at a time: a decoder's last bits may depend on the size of the batch."""
        return torch.cat([self.autoencoder.decode(latent[None] / self.factor) for latent in latents])

    def _labels(self, wanted: str | None) -> list[int]:
        if wanted is None:
            return sorted(self.classes)
        known = {name: number for number, name in self.classes.items()}
        number = known.get(wanted, int(wanted) if wanted.isdecimal() else -1)
        if number not in self.classes:
            some = ", ".join(list(known)[:8]) + (" ..." if len(known) > 8 else "")
            raise wrong_value("--class", f"be one of {some}, or a number below {len(known)}", wanted)
        return [number]


def sample(request: SampleRequest, load: Load) -> int:
    """Draw, write and measure; returns the exit code.

    Args:
        load: (folder, subfolder) -> an autoencoder, in eval mode on the CPU.

    Raises:
        DataError, WeightsError, FileNotFoundError, ValueError: a wrong request.
    """
    if request.device == "cuda" and not torch.cuda.is_available():
        raise wrong_value("--device", "be cpu or auto where torch finds no CUDA GPU", request.device)
    processes = Processes(request.device)
    try:
        output, problem = processes.gather(_output(request) if processes.is_main else None)[0]
        if problem:
            raise ValueError(problem)
        sampler = Sampler(request, load, processes.device)
        measured = None if request.fid is None else _Measured(request, sampler, processes)
        kept: list[Tensor] = []
        for numbers, images in _batches(request, sampler, processes):
            if output.suffix.lower() == ENDING:
                shares = processes.gather(to_uint8(images))
                kept += [image for share in shares for image in share] if processes.is_main else []
            else:
                _write_each(output, numbers, images)
            if measured is not None:
                measured.add(numbers, images)
        lines = [] if measured is None else measured.lines()
        if processes.is_main:
            if kept:
                write_samples(output, to_float(torch.stack(kept)))
            with contextlib.suppress(BrokenPipeError):
                print("\n".join([*lines, f"written   {output}: {request.images:,} images"]), flush=True)
        processes.wait()
        return 0
    finally:
        processes.end()


def _batches(request: SampleRequest, sampler: Sampler, processes: Processes) -> Iterator[tuple[range, Tensor]]:
    """This process's samples: (their numbers, images [B, 3, size, size] on the CPU); the last B may be 0."""
    at_once = request.batch_size or (64 if processes.device.type == "cuda" else 8)
    rounds = math.ceil(request.images / at_once / processes.world_size)
    with tqdm(total=request.images, desc="samples", disable=not processes.is_main, dynamic_ncols=True) as bar:
        for turn in range(rounds):
            first = (turn * processes.world_size + processes.rank) * at_once
            numbers = range(min(first, request.images), min(first + at_once, request.images))
            yield numbers, sampler(numbers).cpu() if numbers else torch.empty(0, 3, sampler.size, sampler.size)
            bar.update(min(at_once * processes.world_size, request.images - bar.n))


class _Measured:
    """Samples beside as many images of data, as sets; and decoded noise beside the same images, as a yardstick."""

    def __init__(self, request: SampleRequest, sampler: Sampler, processes: Processes) -> None:
        self.request, self.sampler, self.processes = request, sampler, processes
        source = WeightSource(request.weights, request.download, request.random_weights)
        size, device = sampler.size, processes.device
        self.missing = ""
        try:
            self.samples = SampleQuality(("fwd", "fid"), size, device, source)
        except WeightsError as error:
            self.missing = f"FID       not measured: {error}"
            self.samples = SampleQuality(("fwd",), size, device, source)
        self.noise = SampleQuality(("fwd",), size, device, source)
        self.count = self.measured = 0
        self.data, self.description = self._open()

    def _open(self) -> tuple[Iterator[Tensor], str]:
        """Images, uint8 [3, size, size], in one order in every process."""
        request, name = self.request, str(self.request.fid)
        if name == OWN_DATA:
            config = RunFolder(request.run).read_config(DiffusionConfig)
            if config.autoencoder.cache is not None:
                rule = "name images for a run that was trained from a cache"
                raise wrong_value("--fid", rule, name, "give the folder or data set that was encoded")
            return other_crops(config, request.images)
        images = open_images(name, split="train")
        if len(images) and len(images) < request.images:
            raise DataError(f"--fid must name at least --images={request.images} images, got {images.description}")
        view = functools.partial(protocol("ldm").view, size=self.sampler.size)
        return (pixels for batch in images.batches(view, 1) for pixels in batch.pixels), images.description

    def add(self, numbers: range, samples: Tensor) -> None:
        """Take in samples, and the images of the data that have their numbers."""
        while self.count < numbers.start:  # another process's
            next(self.data, None)
            self.count += 1
        originals = list(itertools.islice(self.data, len(numbers)))
        self.count += len(numbers)
        self.measured += len(originals)  # fewer than samples, where some cannot be used
        if not originals:
            return
        measured, images = numbers[: len(originals)], torch.stack(originals)
        self.samples.add(measured, images, samples[: len(originals)])
        self.noise.add(measured, images, self.sampler.decode(self.sampler.noise(measured)))

    def lines(self) -> list[str]:
        """What was measured, and how."""
        pairs = sum(self.processes.gather(self.measured))
        values, warnings = self.samples.values(self.processes)
        noise, _ = self.noise.values(self.processes)
        found = [f"{_NAMES.get(name, name):<9} {value:.4g}" for name, value in values.items()]
        yardstick = [f"noise     {_NAMES[name]} {value:.4g} of noise, decoded" for name, value in noise.items()]
        return [
            *found,
            *filter(None, [self.missing]),
            *yardstick,
            f"against   {self.description}: {NOTE.format(images=pairs, size=self.sampler.size)}",
            *(f"note      {warning}" for warning in warnings),
        ]


def _pipeline_folder(run: Path) -> Path:
    for folder in (run, run / "model"):
        if (folder / "model_index.json").is_file():
            return folder
    if (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run} must be a finished diffusion run, got one without model/model_index.json")
    found = "a folder without" if run.is_dir() else "no such folder"
    raise FileNotFoundError(f"{run} must be a diffusion run or a pipeline, with model_index.json, got {found}")


def _sampling(request: SampleRequest) -> SamplingConfig:
    """The recipe's sampling, where the run has it, with what was asked for in its place."""
    if request.eta is not None:
        check_number("--eta", request.eta, at_least=0, at_most=1)
    if request.guidance is not None:
        check_number("--guidance", request.guidance, at_least=1)
    own = SamplingConfig()
    if (request.run / "config.yaml").is_file():
        own = RunFolder(request.run).read_config(DiffusionConfig).sampling
    steps = request.steps or own.steps
    guidance = own.guidance if request.guidance is None else request.guidance
    eta = own.eta if request.eta is None and request.sampler is None else request.eta or 0.0
    return SamplingConfig(steps=steps, guidance=guidance, eta=eta)


def _output(request: SampleRequest) -> tuple[Path, str]:
    """Where to write, and why that cannot be, or ""."""
    _pipeline_folder(request.run)
    output = request.output or unused(request.run / f"samples-{request.seed}.png")
    try:
        if output.suffix.lower() == ENDING:
            check_file("--output", output, [ENDING])
            if output.exists():
                raise wrong_value("--output", "name a file that is not there yet", str(output), "name another")
            if request.images > MOST_IN_GRID:
                rule = f"be at most {MOST_IN_GRID} for a grid"
                raise wrong_value("--images", rule, request.images, "name a folder with --output")
        else:
            check_folder("--output", output)
            if output.is_dir() and any(output.iterdir()):
                raise wrong_value("--output", "name an empty folder", str(output), "name another")
    except ValueError as error:
        return output, str(error)
    return output, ""


def _write_each(folder: Path, numbers: range, images: Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in zip(numbers, images, strict=True):
        with replacing(folder / f"{number:06d}{ENDING}") as temporary:
            to_image(image).save(temporary)
