"""Are held-out images of any size measured as they are, and is the baseline what it says?"""

import gc
import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from litevae import LiteVAE
from litevae.data import HeldOutImage, to_tensor
from litevae.data.image_sources import BUILT_IN_HELD_OUT, FileSource, built_in_paths
from litevae.evaluation.autoencoders import BicubicBaseline
from litevae.evaluation.held_out import KEPT, Evaluation, Measured, bicubic_baseline, evaluate
from litevae.evaluation.instruments import Instruments
from litevae.evaluation.metrics import lpips_distance, psnr, ssim
from litevae.evaluation.set_metric import Batch
from litevae.evaluation.wavelet_distance import FWD
from litevae.evaluation.weights import WeightSource
from litevae.losses.perceptual import PerceptualConfig, build_perceptual


@pytest.fixture
def model() -> LiteVAE:
    torch.manual_seed(0)
    return LiteVAE.from_preset("S", block_out_channels=(8, 8, 8, 8), layers_per_block=1, dropout=0.5)


def held_out(*sizes: tuple[int, int]) -> list[HeldOutImage]:
    generator = torch.Generator().manual_seed(0)
    return [HeldOutImage(f"{h}x{w}", torch.rand(3, h, w, generator=generator) * 2 - 1) for h, w in sizes]


def test_any_size_is_padded_and_cropped_back(model: LiteVAE) -> None:
    evaluation = evaluate(model, held_out((17, 30), (16, 16), (40, 11)), torch.device("cpu"))
    for item in evaluation.images:
        assert item.reconstruction.shape == item.original.shape
        assert item.latent is not None
        expected = peak_signal_noise_ratio(
            item.original.double().numpy(), item.reconstruction.double().numpy(), data_range=2
        )
        assert item.psnr == pytest.approx(expected, rel=1e-9)
    assert [tuple(item.latent.shape) for item in evaluation.images if item.latent is not None] == [
        (4, 3, 4),
        (4, 2, 2),
        (4, 5, 2),
    ]
    assert evaluation.psnr == pytest.approx(np.mean([item.psnr for item in evaluation.images]))


@pytest.mark.parametrize(("levels", "factor"), [((1, 2), 4), ((1, 2, 3, 4), 16)])
def test_sides_are_padded_to_what_the_model_takes(levels: tuple[int, ...], factor: int) -> None:
    torch.manual_seed(0)
    widths: dict[str, Any] = {f"{part}_channels": 4 for part in ("extraction", "aggregation")}
    widths |= {f"{part}_multipliers": (1,) for part in ("extraction", "aggregation")}
    other = LiteVAE(wavelet_levels=levels, block_out_channels=(8,) * (levels[-1] + 1), layers_per_block=1, **widths)
    other.eval()
    (item,) = evaluate(other, held_out((18, 37)), torch.device("cpu")).images
    padded = np.pad(item.original.numpy(), ((0, 0), (0, -18 % factor), (0, -37 % factor)), mode="edge")
    with torch.no_grad():
        output = other(torch.from_numpy(padded)[None])
    assert item.latent is not None
    assert torch.equal(item.latent, output.latent[0])
    assert item.latent.shape == (4, math.ceil(18 / factor), math.ceil(37 / factor))
    assert torch.equal(item.reconstruction, output.sample[0, :, :18, :37].clamp(-1, 1))


def test_measured_is_the_model_s_forward_in_eval_mode(model: LiteVAE) -> None:
    """Dropout off, the posterior's mode, and the training mode back afterwards."""
    items = held_out((16, 24))
    model.train()
    first, second = (evaluate(model, items, torch.device("cpu")).images[0] for _ in range(2))
    assert model.training
    assert torch.equal(first.reconstruction, second.reconstruction)
    with torch.no_grad():
        expected = model.eval()(items[0].image[None]).sample[0].clamp(-1, 1)
    torch.testing.assert_close(first.reconstruction, expected, rtol=0, atol=0)


def test_only_forward_is_called(model: LiteVAE) -> None:
    """A wrapper such as DDP synchronises in forward alone; encode and decode on the inner model bypass it."""

    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.downsampling = inner, 8

        def forward(self, x: torch.Tensor, sample_posterior: bool = False) -> object:
            return self.inner(x, sample_posterior=sample_posterior)

    items = held_out((16, 16))
    wrapped = evaluate(Wrapper(model), items, torch.device("cpu"))
    assert wrapped.psnr == evaluate(model, items, torch.device("cpu")).psnr


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_baseline_on_the_photographs_equals_pillow_s_bicubic(factor: int) -> None:
    """Antialiased down, bicubic up. Pillow's cubic has a = -0.5, torch's upsampling -0.75, which is 0.1 dB better."""
    from PIL import Image

    source = FileSource(built_in_paths(BUILT_IN_HELD_OUT))
    photos = [source.read(index).crop((0, 0, 288, 288)) for index in range(2)]
    items = [HeldOutImage("x", to_tensor(photo)) for photo in photos]
    baseline = bicubic_baseline(items, torch.device("cpu"), downsampling=factor)
    assert baseline.method == f"{factor}x down, bicubic up"
    for photo, measured in zip(photos, baseline.images, strict=True):
        small = photo.resize((288 // factor, 288 // factor), Image.Resampling.BICUBIC)
        large = np.asarray(small.resize((288, 288), Image.Resampling.BICUBIC))
        assert measured.psnr == pytest.approx(peak_signal_noise_ratio(np.asarray(photo), large), abs=0.2)


def test_baseline_keeps_a_constant_image_of_odd_size() -> None:
    baseline = bicubic_baseline([HeldOutImage("gray", torch.full((3, 19, 21), 0.3))], torch.device("cpu"))
    assert baseline.images[0].reconstruction.shape == (3, 19, 21)
    assert baseline.psnr > 100


def test_lpips_is_measured_on_the_pair_and_named(model: LiteVAE) -> None:
    perceptual = build_perceptual(PerceptualConfig(trunk="random"))
    evaluation = evaluate(model, held_out((16, 24), (24, 16)), torch.device("cpu"), perceptual)
    expected = [perceptual(item.reconstruction[None], item.original[None]).item() for item in evaluation.images]
    assert [item.lpips for item in evaluation.images] == pytest.approx(expected)
    line = evaluation.as_metrics(3, raw=evaluation)
    assert line["lpips_random_trunk"] == line["raw"]["lpips_random_trunk"] == pytest.approx(np.mean(expected))
    assert "lpips" not in line


def test_a_stream_gives_the_numbers_of_a_list_of_reconstructions(model: LiteVAE) -> None:
    """The means are those over all images, also over those that are not kept: bit for bit up to the last addition."""
    perceptual = build_perceptual(PerceptualConfig(trunk="random"))
    items = held_out(*[(16, 24), (17, 30), (40, 16)] * 6)
    evaluation = evaluate(model, iter(items), torch.device("cpu"), perceptual)
    scores = []
    for item in items:
        height, width = item.image.shape[-2:]
        padded = np.pad(item.image.numpy(), ((0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")
        with torch.no_grad():
            output = model.eval()(torch.from_numpy(padded)[None]).sample[:, :, :height, :width].clamp(-1, 1)
        pair = output, item.image[None]
        scores.append((psnr(*pair).item(), ssim(*pair).item(), lpips_distance(perceptual, *pair).item()))
    assert [(image.psnr, image.ssim, image.lpips) for image in evaluation.images] == scores[:KEPT]
    means = (evaluation.psnr, evaluation.ssim, evaluation.lpips)
    rounding = len(items) * np.finfo(np.float64).eps * np.abs(scores).max(axis=0)  # of a mean by so many additions
    assert (np.abs(np.subtract(means, np.mean(scores, axis=0))) <= rounding).all()
    assert (evaluation.count, len(evaluation.images), len(items)) == (18, KEPT, 18)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_memory_does_not_grow_with_the_number_of_images(model: LiteVAE, batch_size: int) -> None:
    """Once `KEPT` images are kept, as many tensors live when the last image is read as many images before."""
    living = []

    def stream() -> Iterator[HeldOutImage]:
        for number in range(1 + 4 * KEPT):
            if number % KEPT == 0:
                gc.collect()
                tensors = (thing for thing in gc.get_objects() if type(thing) is torch.Tensor)
                living.append(sum(tensor.shape[-2:] == (16, 16) for tensor in tensors))
            yield HeldOutImage(str(number), torch.rand(3, 16, 16))

    evaluation = evaluate(model, stream(), torch.device("cpu"), batch_size=batch_size)
    assert evaluation.count == 1 + 4 * KEPT
    assert 2 * (KEPT - batch_size) <= living[1] - living[0]  # originals and reconstructions: the count sees them
    assert living[2] == living[3] == living[4] <= living[0] + 2 * KEPT + 8 * batch_size  # the batch at hand, its views


def test_images_of_one_size_are_reconstructed_together(model: LiteVAE) -> None:
    """In float64, where what a batch rounds otherwise is below the last digit of the float32 results."""
    sizes = [(16, 24)] * 5 + [(24, 16)] * 2 + [(16, 24)]
    items = [HeldOutImage(item.name, item.image.double()) for item in held_out(*sizes)]
    seen = []
    model.double().register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    together = evaluate(model, items, torch.device("cpu"), batch_size=3)
    assert seen == [(3, 3, 16, 24), (2, 3, 16, 24), (2, 3, 24, 16), (1, 3, 16, 24)]
    alone = evaluate(model, items, torch.device("cpu"))
    for one, other in zip(together.images, alone.images, strict=True):
        assert one.name == other.name
        torch.testing.assert_close(one.reconstruction, other.reconstruction)
        assert one.psnr == pytest.approx(other.psnr, rel=1e-6)


def test_parts_of_several_processes_add_up(model: LiteVAE) -> None:
    items = held_out(*[(16, 16), (16, 24)] * 10)
    whole = evaluate(model, items, torch.device("cpu"))
    first, second = (evaluate(model, part, torch.device("cpu")) for part in (items[:7], items[7:]))
    first.merge(pickle.loads(pickle.dumps(second)))  # as it comes from another process
    assert first.count == whole.count == 20
    assert (first.psnr, first.ssim) == pytest.approx((whole.psnr, whole.ssim), rel=20 * np.finfo(np.float64).eps)
    assert [image.psnr for image in first.images] == [image.psnr for image in whole.images]
    empty = Evaluation()
    empty.merge(whole)  # a process may have had no image
    assert empty.as_metrics(5) == whole.as_metrics(5)
    with pytest.raises(ValueError, match=r"lpips_name must be lpips, got lpips_random_trunk"):
        first.merge(Evaluation(lpips_name="lpips_random_trunk"))


def test_the_numbers_of_all_images_are_kept() -> None:
    image = torch.zeros(3, 8, 8)
    parts = [
        [Measured(f"{number}", image, image, None, float(number), 0.5) for number in part]
        for part in ((0,), range(1, 20))
    ]
    evaluation = Evaluation(parts[0])
    evaluation.merge(Evaluation(parts[1]))
    images = evaluation.as_metrics(0)["images"]
    assert [scores["psnr"] for scores in images.values()] == list(range(20))
    assert len(evaluation.images) == KEPT


def test_means_are_over_the_images_that_have_the_number() -> None:
    image = torch.zeros(3, 8, 8)
    evaluation = Evaluation(Measured(str(lpips), image, image, None, 20.0, 0.5, lpips) for lpips in (None, 0.2, 0.4))
    assert (evaluation.psnr, evaluation.lpips) == pytest.approx((20.0, 0.3))
    with pytest.raises(ValueError, match="must hold at least one image to have means, got none"):
        _ = Evaluation().psnr


@pytest.mark.parametrize("batch_size", [1, 3])
def test_sets_are_of_all_images_and_their_reconstructions(model: LiteVAE, batch_size: int) -> None:
    cpu, items = torch.device("cpu"), held_out(*[(32, 32)] * 4)
    instruments = Instruments(("fwd",), BicubicBaseline(cpu), WeightSource())
    evaluations = {
        "model": evaluate(model, items, cpu, batch_size=batch_size, sets=instruments.at(32)),
        "bicubic": bicubic_baseline(items, cpu, sets=instruments.at(32)),
    }
    for evaluation in evaluations.values():
        direct = FWD()
        originals = torch.stack([item.original for item in evaluation.images])
        direct.add(Batch((0, 1, 2, 3), originals, torch.stack([item.reconstruction for item in evaluation.images])))
        assert evaluation.distances == direct.values()
        assert evaluation.as_metrics(0, evaluation)["fwd"] == evaluation.as_metrics(0, evaluation)["raw"]["fwd"]
    assert evaluations["model"].distances != evaluations["bicubic"].distances
    assert evaluate(model, items, cpu).distances == {}
