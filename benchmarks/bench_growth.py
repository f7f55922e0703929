"""Time and memory of encoding as they grow with the image's size and with the batch.

image -> [DWT -> feature extraction -> aggregation -> latent] -> decoder -> losses

LiteVAE-B's `encode`, eval, inference_mode, random weights: one image from 128x128 to 2048x2048, then batches of 1 to 64
at 256x256, the larger ones also in slices of 8 (`enable_slicing`). Without attention in the encoder, all of it should
grow with the number of pixels; memory in slices should not grow beyond the slice, but for images and latents.
`python -m benchmarks.readme` draws the figure from the stored table.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.harness import measure
from benchmarks.harness.available import emulated
from benchmarks.harness.checks import check_network
from benchmarks.harness.measure import DEVICE
from benchmarks.harness.report import Column, Results, Table
from benchmarks.harness.rows import measures
from benchmarks.harness.schedule import UNLIMITED, Share
from benchmarks.rivals.encoders import litevae_live_mb
from litevae.evaluation.figures import BLUE, GRAY, ORANGE, STYLE
from litevae.models.litevae import LiteVAE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDES = (128, 256, 512, 1024, 2048)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
BATCH_SIDE = 256
SLICE_SIZE = 8
LARGEST_SIDE, LARGEST_BATCH = (2048, 64) if DEVICE.type == "cuda" else (1024, 8)  # that are timed
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# The figure's lines: colour by dtype, style by what grows.
COLOURS = {"float32": BLUE, "bfloat16": ORANGE}
ONE_IMAGE, BATCH, SLICES = "one image", f"a batch of {BATCH_SIDE}\u00b2", f"the batch in slices of {SLICE_SIZE}"
KINDS: dict[str, Any] = {
    ONE_IMAGE: {"marker": "o", "markersize": 5, "linewidth": 1.8},
    BATCH: {"marker": "s", "markersize": 9, "markerfacecolor": "none", "linewidth": 0},
    SLICES: {"marker": "v", "markersize": 6, "linewidth": 1.2, "linestyle": "-."},
}
LINEAR: dict[str, Any] = {"linestyle": (0, (1, 2)), "linewidth": 1.2, "alpha": 0.7}


@dataclass(frozen=True)
class ImageBatch:
    """A batch of square images, encoded at once or, with a `slice_size`, slice by slice."""

    side: int
    batch: int
    dtype: str
    slice_size: int | None = None

    @property
    def label(self) -> str:
        slices = f", slices of {self.slice_size}" if self.slice_size else ""
        return f"{self.batch} x {self.side}x{self.side}{slices}, {self.dtype}"

    @property
    def megapixels(self) -> float:
        return self.batch * self.side**2 / 1e6

    @property
    def emulated(self) -> str:
        return emulated(DTYPES[self.dtype])

    @property
    def seconds(self) -> float:
        """Of a run, setup and check included."""
        return 1 + 15 * self.megapixels if self.is_timed else 0.5

    @property
    def is_timed(self) -> bool:
        return self.side <= LARGEST_SIDE and self.batch <= LARGEST_BATCH

    def images(self, device: torch.device | str) -> Tensor:
        shape = (self.batch, 3, self.side, self.side)
        return (torch.rand(shape, device=device) * 2 - 1).to(DTYPES[self.dtype])

    def model(self, device: torch.device | str) -> LiteVAE:
        torch.manual_seed(0)
        with torch.device(device):
            model = LiteVAE.from_preset("B").to(dtype=DTYPES[self.dtype]).eval()
        if self.slice_size:
            model.enable_slicing(self.slice_size)
        return model

    def costs(self) -> dict[str, float]:
        """What is the same on every machine, counted on meta tensors."""
        parameters = sum(parameter.nbytes for parameter in self.model("meta").encoder.parameters())
        live = litevae_live_mb("B", DTYPES[self.dtype], self.batch, self.side, self.slice_size)
        return {
            "megapixels": self.megapixels,
            "live_mb": live,
            "live_mb_per_megapixel": (live - parameters / 1e6) / self.megapixels,
        }


ROWS = [
    case
    for dtype in DTYPES
    for case in (
        *(ImageBatch(side, 1, dtype) for side in SIDES),
        *(ImageBatch(BATCH_SIDE, batch, dtype) for batch in BATCHES if batch > 1),
        *(ImageBatch(BATCH_SIDE, batch, dtype, SLICE_SIZE) for batch in BATCHES if batch > SLICE_SIZE),
    )
]
TABLE = Table(
    name="growth",
    title="Growth of LiteVAE-B's encoding with size and batch",
    settings={"mode": "eval, inference_mode, eager, no TF32"},
    columns=[
        Column("row", "images"),
        Column("megapixels", "megapixels", ".3f"),
        Column("time_ms", "median, ms", ".4g"),
        Column("iqr_ms", "IQR, ms", ".2g"),
        Column("ms_per_megapixel", "ms / megapixel", ".4g"),
        Column("to_linear", "/ one 256x256"),
        Column("live_mb", "live tensors, MB", ".0f"),
        Column("live_mb_per_megapixel", "MB / megapixel", ".0f"),
        Column("rounds", "rounds", "d"),
    ],
    order=[case.label for case in ROWS],
    notes=[
        "Linear growth is a constant in the columns by megapixel. / one 256x256: the row's time per megapixel by that "
        "of one image of 256x256, the median over rounds of the row's and that one's right after it.",
        "Live tensors: most bytes of the encoder's parameters, images and activations alive at once, counted on meta "
        "tensors, without workspaces inside operations and an allocator's rounding and fragments. By megapixel: of all "
        "but the parameters.",
        f"Timed here: one image up to {LARGEST_SIDE}x{LARGEST_SIDE}, batches up to {LARGEST_BATCH}. Memory is counted "
        "for all.",
    ],
)


def check(case: ImageBatch, model: LiteVAE, images: Tensor) -> None:
    """Refuse to time a wrong result: of the whole batch at once, the mean is that of the reference operators.

    Of a corner of the images, for larger ones would take longer than what is timed.
    """
    images = images[..., : SIDES[0], : SIDES[0]]
    mean = model.encode(images).latent_dist.mean

    def plain(precision: str) -> list[Tensor]:
        at_once = dataclasses.replace(case, dtype=precision, slice_size=None).model(DEVICE)
        at_once.load_state_dict(model.state_dict())
        return [at_once.encode(images.to(DTYPES[precision])).latent_dist.mean]

    check_network(case.label, case.dtype, [mean], plain)


def encoding(case: ImageBatch) -> tuple[LiteVAE, Tensor, measure.Step]:
    """The model, the images, and the step that is timed."""
    model, images = case.model(DEVICE), case.images(DEVICE)
    return model, images, measure.consuming(model.encode, itertools.repeat(images))


@functools.lru_cache(maxsize=1)
def one_image(dtype: str) -> measure.Round:
    """The yardstick, warm: its time predicts that of every other row."""
    with torch.inference_mode():
        return measure.warmed(encoding(ImageBatch(BATCH_SIDE, 1, dtype))[2], UNLIMITED)


@measures(TABLE, ROWS, seconds=lambda batch: batch.seconds)
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # where memory alone is counted
@torch.inference_mode()
def test_growth(row: ImageBatch, benchmark: BenchmarkFixture, results: Results, share: Share) -> None:
    values: dict[str, Any] = {**dataclasses.asdict(row), **row.costs()}
    if row.is_timed:
        one = one_image(row.dtype)
        expected_s = one.expected_s / one.calls * row.megapixels / (BATCH_SIDE**2 / 1e6)
        checks_s = 3 * one.expected_s / one.calls * row.batch * (SIDES[0] / BATCH_SIDE) ** 2
        if reason := share.lacks(one.expected_s + expected_s, checks_s + expected_s):  # and a warm-up
            pytest.skip(reason)
        model, images, step = encoding(row)
        check(row, model, images)
        timing = measure.time_interleaved(benchmark, step, {"one": one}, share)
        if timing is None:
            return
        values |= {"time_ms": timing.median_s * 1e3, "iqr_ms": timing.iqr_ms, "rounds": timing.rounds}
        values["ms_per_megapixel"] = values["time_ms"] / row.megapixels
        values["to_linear"] = timing.ratios["one"] * BATCH_SIDE**2 / 1e6 / row.megapixels
        benchmark.extra_info.update(values)
    results.add(TABLE, row.label, values)


def figure(document: Mapping[str, Any]) -> Figure:
    """Time and live memory over the number of pixels, both logarithmic, of a stored table."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.titlepad": 10}):
        drawn = Figure(figsize=(11, 5.4), layout="constrained")
        grid = drawn.add_gridspec(2, 2, height_ratios=(1, 12))
        for column, (quantity, title) in enumerate(
            {"time_ms": "Time, ms", "live_mb": "Live tensors with parameters, MB"}.items()
        ):
            axes = drawn.add_subplot(grid[1, column])
            axes.set(title=title, xlabel="pixels of the batch", xscale="log", yscale="log")
            for dtype, colour in COLOURS.items():
                _plot_growth(axes, [row for row in document["rows"] if row["dtype"] == dtype], quantity, colour)
            axes.set_xticks([side**2 / 1e6 for side in SIDES], [f"{side}\u00b2" for side in SIDES], minor=False)
            axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            axes.yaxis.set_major_formatter("{x:,g}")
        machine = document["conditions"]["machine"].partition(",")[0]
        drawn.suptitle(f"Encoding with LiteVAE-B on {machine}", x=0.01, ha="left", fontsize=15, fontweight="bold")
        _legend(drawn.add_subplot(grid[0, :]))
    return drawn


def _plot_growth(axes: Axes, rows: Sequence[Mapping[str, Any]], quantity: str, colour: str) -> None:
    """One line for each of KINDS, and through the largest single image what linear growth would be."""
    for kind, style in KINDS.items():
        points = [(row["megapixels"], row[quantity]) for row in rows if row.get(quantity) and _is_of(kind, row)]
        axes.plot(*zip(*sorted(points), strict=True) if points else ((), ()), color=colour, **style)
        if kind == ONE_IMAGE and points:
            pixels, value = max(points)
            ends = [side**2 / 1e6 for side in (SIDES[0], SIDES[-1])]
            axes.plot(ends, [value * end / pixels for end in ends], **{**LINEAR, "color": colour})


def _is_of(kind: str, row: Mapping[str, Any]) -> bool:
    if kind == SLICES:
        return row["slice_size"] is not None
    return row["slice_size"] is None and (row["batch"] == 1 if kind == ONE_IMAGE else row["side"] == BATCH_SIDE)


def _legend(axes: Axes) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=4, label=dtype) for dtype, colour in COLOURS.items()]
    handles += [Line2D([], [], label=kind, color=GRAY, **style) for kind, style in KINDS.items()]
    handles.append(Line2D([], [], label="linear growth", color=GRAY, **LINEAR))
    axes.set_axis_off()
    axes.legend(handles=handles, loc="center left", ncols=len(handles), frameon=False, borderpad=0)
