"""What metrics cost beside the model that they measure: images/s of an evaluation, and of its forward passes alone.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> metrics]

One process evaluates photographs in memory with psnr, ssim and fwd, as `python -m litevae.evaluate` does: cut, encoded,
decoded, measured. The rival encodes and decodes the same batches. A round is as many images as FWD adds to its sums at
once. The rows: LiteVAE-S with the narrow decoder of the quickstart, for which metrics weigh the most, and with Stable
Diffusion's on a GPU. The last step of FWD, once for each evaluation, is not in it.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import measure
from benchmarks.harness.available import missing_package
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import Share

SIZE, IMAGES = 128, 128
NARROW: dict[str, Any] = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "decoder_normalization": "smc"}


@dataclass(frozen=True)
class EvaluationRow:
    label: str
    options: dict[str, Any]

    @property
    def unavailable(self) -> str:
        needed = ("accelerate", "skimage", "torchmetrics", "diffusers")
        return next(filter(None, map(missing_package, needed)), "")


ROWS = [EvaluationRow("LiteVAE-S, the quickstart's decoder", NARROW)]
if measure.DEVICE.type == "cuda":
    ROWS.append(EvaluationRow("LiteVAE-S", {}))
TABLE = Table(
    name="evaluation",
    title="Evaluation beside the forward pass alone",
    settings={"metrics": "psnr, ssim, fwd", "images": f"{IMAGES} of {SIZE}x{SIZE}"},
    columns=[
        Column("row", "model"),
        Column("img_per_s", "img/s", ".3g"),
        Column("forward_img_per_s", "forward alone, img/s", ".3g"),
        Column("ratio", "/ forward"),
        Column("batch", "batch", "d"),
        Column("rounds", "rounds", "d"),
    ],
    order=[row.label for row in ROWS],
    notes=["/ forward: the median over rounds of the time of the forward passes and the evaluation's."],
)


class Photographs:
    """Crops of scikit-image's photographs, as an ImageSource."""

    def __init__(self) -> None:
        from litevae.data.image_sources import BUILT_IN_HELD_OUT, built_in_paths
        from litevae.data.images import read_image

        photographs = [read_image(path) for path in built_in_paths(BUILT_IN_HELD_OUT)]
        side = 300  # of every photograph at least
        self.images = [one.crop((shift, 0, shift + side, side)) for one in photographs for shift in range(0, 128, 2)]

    def __len__(self) -> int:
        return IMAGES

    def name(self, index: int) -> str:
        return str(index)

    title = name

    def identities(self) -> list[str]:
        return [str(index) for index in range(IMAGES)]

    def read(self, index: int) -> Any:
        return self.images[index % len(self.images)]


def measurement(options: dict[str, Any], batch: int) -> Any:
    """A pass that has not begun."""
    from litevae import LiteVAE
    from litevae.data import EvaluationImages, SkipCounts, protocol
    from litevae.evaluation.autoencoders import EvaluatedAutoencoder
    from litevae.evaluation.content_hash import ContentHash
    from litevae.evaluation.measurement import Measurement
    from litevae.evaluation.metrics import psnr, ssim
    from litevae.evaluation.wavelet_distance import FWD
    from litevae.runs.processes import Processes

    torch.manual_seed(0)
    model = EvaluatedAutoencoder(LiteVAE.from_preset("S", **options).to(measure.DEVICE), "LiteVAE-S")
    images = EvaluationImages("photographs", "photographs", Photographs(), None, SkipCounts(), workers=0)
    view = functools.partial(protocol("ldm").view, size=SIZE)
    metrics = ({"psnr": psnr, "ssim": ssim}, [ContentHash(), FWD()])
    return Measurement(model, images, view, SIZE, *metrics, Processes(measure.DEVICE.type), batch)


@measures(TABLE, ROWS, seconds=30.0)
def test_evaluation(row: EvaluationRow, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    from litevae.evaluation.one_size import batch_size

    batch = batch_size(SIZE, measure.DEVICE)
    passing = measurement(row.options, batch)

    def evaluate() -> None:
        passing.batches_done = 0
        *_, done = passing.run()
        assert done == IMAGES

    tensors = [one.pixels.to(measure.DEVICE) for one in passing.images.batches(passing.view, batch)]

    def forward() -> None:
        for pixels in tensors:
            passing.model.decode(passing.model.encode(pixels.float() / 127.5 - 1).mean)

    timing = measure.time_interleaved(benchmark, evaluate, {"forward": forward}, share)
    if timing is None:
        return
    speeds = {
        "img_per_s": timing.images_per_second(IMAGES)["img_per_s"],
        "forward_img_per_s": timing.of("forward", "own").images_per_second(IMAGES)["img_per_s"],
    }
    ratio = 1 / timing.ratios["forward"]
    benchmark.extra_info.update(speeds, ratio=ratio, batch=batch, rounds=timing.rounds)
    results.add(TABLE, row.label, benchmark.extra_info)
