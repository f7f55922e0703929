"""Is every image measured once, in any batches, by any number of processes, in one go or with interruptions?"""

from __future__ import annotations

import functools
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from litevae import LiteVAE
from litevae.data import EvaluationImages, open_images, protocol
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder
from litevae.evaluation.measurement import Measurement, NotFiniteError, reconstruct
from litevae.evaluation.metrics import psnr, ssim
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.runs.checkpoint import SaveError
from litevae.runs.processes import Processes

SIZE, COUNT = 32, 7


class Sums(SetMetric):
    """Sums and first entries of what went through."""

    name = "sums"
    most_kept = 3

    def add(self, batch: Batch) -> None:
        self.accumulate("images", torch.tensor(len(batch.indices)))
        self.accumulate("reconstructions", batch.reconstructions.double().sum(0))
        for index, image in zip(batch.indices, batch.images, strict=True):
            self.keep(index, image.mean())

    def values(self) -> dict[str, Any]:
        return {"sums": self.sums["reconstructions"].sum().item() / self.sums["images"].item()}


class FirstSums(Sums):
    name = "first"
    most_images = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    pixels = torch.randint(256, (COUNT, 40, 36, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(place / f"{index}.png")
    return place


@pytest.fixture(scope="module")
def model() -> EvaluatedAutoencoder:
    torch.manual_seed(0)
    return EvaluatedAutoencoder(LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16)), "mine")


class Alone(Processes):
    """One process, or one of several that never meet."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size


def measurement(folder: Path, model: Any, batch_size: int = 1, processes: Any = None, **options: Any) -> Measurement:
    view = functools.partial(protocol("lanczos").view, size=SIZE)
    images: EvaluationImages = open_images(str(folder), workers=0)
    metrics = [Sums(), FirstSums()]
    about = (model, images, view, SIZE, {"psnr": psnr, "ssim": ssim}, metrics, processes or Alone())
    return Measurement(*about, batch_size=batch_size, **options)


def state_of(measured: Measurement) -> Iterator[tuple[str, Tensor]]:
    for metric in measured.set_metrics:
        yield from ((f"{metric.name} {name}", value) for name, value in metric.sums.items())
        yield from ((f"{metric.name} {index}", value) for index, value in metric.kept.items())
    yield from ((f"{i} {name}", torch.tensor(v)) for i, score in measured.scores.items() for name, v in score.items())


def assert_equal_states(first: Measurement, second: Measurement, **tolerance: float) -> None:
    one, two = dict(state_of(first)), dict(state_of(second))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, **tolerance or {"rtol": 0, "atol": 0}, msg=name)


def test_scores_are_those_of_the_model_itself(folder: Path, model: EvaluatedAutoencoder):
    measured = measurement(folder, model)
    assert list(measured.run()) == list(range(1, COUNT + 1))
    assert sorted(measured.names.values()) == [f"{index}.png" for index in range(COUNT)]
    image = protocol("lanczos").view(Image.open(folder / measured.names[4]), SIZE)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = model.model(image, sample_posterior=False).sample.clamp(-1, 1)
    assert measured.scores[4]["psnr"] == pytest.approx(psnr(expected, image).item(), rel=1e-6)
    mean = sum(score["psnr"] for score in measured.scores.values()) / COUNT
    assert measured.means()[0]["psnr"] == pytest.approx(mean)
    measured.scores[0]["psnr"] = float("inf")
    means, warnings = measured.means()
    assert means["psnr"] < float("inf")
    assert warnings == ["psnr: 1 images without an error have no finite value and are left out"]
    assert measured.set_metrics[0].sums["images"] == COUNT
    assert measured.set_metrics[1].sums["images"] == 3
    assert sorted(measured.set_metrics[0].kept) == [0, 1, 2]


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_batches_change_nothing_but_rounding(folder: Path, model: EvaluatedAutoencoder, batch_size: int):
    one, many = measurement(folder, model), measurement(folder, model, batch_size)
    list(one.run())
    assert list(many.run())[-1] == COUNT
    assert many.set_metrics[0].sums["images"] == COUNT
    assert_equal_states(one, many, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sample_seed", [None, 3])
def test_an_interrupted_pass_goes_on(folder: Path, model: EvaluatedAutoencoder, tmp_path: Path, sample_seed: Any):
    unbroken = measurement(folder, model, 2, sample_seed=sample_seed)
    list(unbroken.run())
    state = tmp_path / "state.pt"
    for batches in (1, 2, 9):
        broken = measurement(folder, model, 2, sample_seed=sample_seed)
        assert broken.load(state) == (batches > 1)
        for _ in itertools.islice(broken.run(), batches):
            pass
        broken.save(state)
    assert broken.batches_done == 4
    assert_equal_states(unbroken, broken)


def test_another_pass_is_not_continued(folder: Path, model: EvaluatedAutoencoder, tmp_path: Path):
    state = tmp_path / "state.pt"
    other = measurement(folder, model, 2, key="another model")
    list(other.run())
    other.save(state)
    fresh = measurement(folder, model, 2, key="this model")
    assert not fresh.load(state)
    state.write_bytes(b"damaged")
    assert not fresh.load(state)
    assert not fresh.load(tmp_path / "missing")
    assert fresh.batches_done == 0
    assert not fresh.scores


def test_a_pass_goes_on_in_batches_that_divide_what_is_done(folder: Path, model: EvaluatedAutoencoder, tmp_path: Path):
    whole, broken = measurement(folder, model, 2), measurement(folder, model, 4)
    list(whole.run())
    assert next(broken.run()) == 4
    broken.save(tmp_path / "state.pt")
    again = measurement(folder, model, 2)
    assert again.load(tmp_path / "state.pt")
    assert again.batches_done == 2
    list(again.run())
    assert_equal_states(whole, again, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"--batch-size must be 4, and 1 processes, as when .* got '3, and 1'"):
        measurement(folder, model, 3).load(tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"--batch-size must be 4, and 1 processes, as when .* got '4, and 2'"):
        measurement(folder, model, 4, Alone(0, 2)).load(tmp_path / "state.pt")
    assert not measurement(folder, model, 4, references=["rfid"]).load(tmp_path / "state.pt")


def test_shares_of_processes_are_all(folder: Path, model: EvaluatedAutoencoder):
    whole = measurement(folder, model, 2)
    list(whole.run())
    shares = [measurement(folder, model, 2, Alone(rank, 3)) for rank in range(3)]
    for share in shares:
        list(share.run())
    first = shares[0]
    for share in shares[1:]:
        first.scores |= share.scores
        for own, other in zip(first.set_metrics, share.set_metrics, strict=True):
            own.merge(other.sums, other.kept)
    assert_equal_states(whole, first, rtol=1e-12, atol=1e-12)


JOINED = """
import importlib.util, sys, torch
from pathlib import Path
from litevae.runs.checkpoint import SaveError
from litevae.runs.processes import Processes
folder = Path(sys.argv[1])
specification = importlib.util.spec_from_file_location("shared", sys.argv[2])
shared = importlib.util.module_from_spec(specification)
specification.loader.exec_module(shared)
torch.manual_seed(0)
torch.set_num_threads(1)
model = shared.EvaluatedAutoencoder(shared.LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16)), "mine")
processes = Processes("cpu")
measured = shared.measurement(folder, model, 2, processes)
list(measured.run())
measured.join()
torch.save(dict(shared.state_of(measured)), folder.parent / f"state-{processes.rank}-of-{processes.world_size}.pt")
processes.end()
"""


@pytest.mark.slow
def test_two_processes_equal_one(folder: Path):
    from tests import children  # not at the top: the program below imports this file by itself

    script = folder.parent / "joined.py"
    script.write_text(JOINED)
    for count in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = children.run([sys.executable, *launcher, str(script), str(folder), __file__], 120)
        assert done.returncode == 0, done.stderr
    alone, first, second = (torch.load(folder.parent / f"state-{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert alone.keys() == first.keys() == second.keys()
    assert first["sums images"] == COUNT
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-12, atol=1e-12)
        assert torch.equal(first[name], second[name])


def test_the_baseline_has_no_latents(folder: Path):
    measured = measurement(folder, BicubicBaseline(torch.device("cpu")))
    list(measured.run())
    assert len(measured.scores) == COUNT
    assert reconstruct(measured.model, (0,), torch.zeros(1, 3, SIZE, SIZE), None).latents is None


def test_a_result_that_is_not_finite_is_refused(folder: Path):
    broken = EvaluatedAutoencoder(LiteVAE.from_preset("S", block_out_channels=(16, 16, 16, 16)), "mine")
    with torch.no_grad():
        broken.model.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(
        NotFiniteError, match=r"the reconstruction of \d\.png by mine must be finite, got a NaN; try --dtype"
    ):
        list(measurement(folder, broken).run())


def test_a_pass_without_a_usable_image_is_an_error(folder: Path, model: EvaluatedAutoencoder):
    with pytest.raises(ValueError, match="DATA must hold images that can be used, got"):
        measurement(folder, model).join()


def test_images_that_cannot_be_used_are_counted(folder: Path, model: EvaluatedAutoencoder, tmp_path: Path):
    place = tmp_path / "images"
    shutil.copytree(folder, place)
    whole = measurement(folder, model, 2)
    list(whole.run())
    first, second = whole.names[3], whole.names[5]
    (place / first).write_bytes(b"not an image")
    (place / second).write_bytes(b"neither")
    broken = measurement(place, model, 2)
    with pytest.warns(UserWarning, match=rf"skipped \(unreadable\) .*{first}"):
        assert list(itertools.islice(broken.run(), 2)) == [2, 4]
    broken.save(tmp_path / "state.pt")
    again = measurement(place, model, 2)
    again.load(tmp_path / "state.pt")
    with pytest.warns(UserWarning, match=rf"skipped \(unreadable\) .*{second}"):
        assert list(again.run()) == [6, 7]
    assert again.skipped == {"unreadable": 2}
    assert sorted(again.scores) == [0, 1, 2, 4, 6]


def test_a_state_is_saved_now_and_then(folder: Path, model: EvaluatedAutoencoder, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("litevae.evaluation.measurement.SAVE_SECONDS", -1)
    killed = measurement(folder, model, 2)
    assert next(iter(killed.run(tmp_path / "state.pt"))) == 2
    again = measurement(folder, model, 2)
    assert again.load(tmp_path / "state.pt")
    assert sorted(again.scores) == [0, 1]


def test_a_state_that_cannot_be_written_is_named(folder: Path, model: EvaluatedAutoencoder, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"cannot write .*file/state\.pt: .*; make room"):
        measurement(folder, model).save(tmp_path / "file" / "state.pt")
