"""Which metrics are measured, what are they called, and is what cannot be had named with its reason?"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from litevae.data import open_images, protocol
from litevae.evaluation import instruments as room
from litevae.evaluation.autoencoders import BicubicBaseline, EvaluatedAutoencoder
from litevae.evaluation.catalogue import METRICS
from litevae.evaluation.feature_networks import FeatureNetwork
from litevae.evaluation.instruments import Instruments
from litevae.evaluation.measurement import Measurement
from litevae.evaluation.weights import INCEPTION_FILE, MissingWeightsError, WeightSource, WrongWeightsError
from litevae.loading import load_autoencoder
from litevae.runs.processes import Processes

from . import small

BASELINE = BicubicBaseline(torch.device("cpu"))
NEED_NETWORKS = ["lpips-vgg", "lpips-alex", "rfid", "kid", "fid-dinov2"]
OF_LATENTS = [name for name, metric in METRICS.items() if metric.needs_latents]


class Corners(FeatureNetwork):
    """Four features, of a network that is quickly made."""

    protocol = "four corners"
    width = 4

    def _features(self, images: Tensor) -> Tensor:
        return images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].float()


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


@pytest.fixture
def quick_networks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The metrics for which a network was made."""
    made: list[str] = []

    def build(metric: str, source: WeightSource) -> Corners:
        made.append(metric)
        return Corners(nn.Identity(), source)

    monkeypatch.setattr(room, "build_inception", build)
    monkeypatch.setattr(room, "build_dinov2", build)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedAutoencoder:
    return EvaluatedAutoencoder(load_autoencoder(small.save_model(tmp_path_factory.mktemp("model"))), "mine")


def test_without_weights_the_rest_is_measured(model: EvaluatedAutoencoder, tmp_path: Path):
    chosen = Instruments(None, model, WeightSource())
    assert list(chosen.names) == small.ALL_OWN.split(",")
    assert chosen.without_weights == NEED_NETWORKS
    assert list(chosen.unavailable) == [*NEED_NETWORKS, "ifid"]
    file = (
        f"rfid needs {INCEPTION_FILE.name}, .* which is not in {tmp_path}/hub/hub/checkpoints; put it there from http"
    )
    with pytest.raises(MissingWeightsError, match=file):
        Instruments(("rfid",), model, WeightSource())
    assert chosen.unavailable["rfid"].startswith("rfid needs")
    assert chosen.unavailable["ifid"].startswith("--training-data must name images of the model's training for ifid")


def test_a_baseline_has_no_metrics_of_latents():
    chosen = Instruments(None, BASELINE, WeightSource())
    assert chosen.names == ("psnr", "ssim", "fwd")
    assert chosen.without_weights == NEED_NETWORKS
    assert list(chosen.unavailable) == NEED_NETWORKS


@pytest.mark.parametrize("name", OF_LATENTS)
def test_a_metric_of_latents_that_was_asked_for_is_refused_of_a_baseline(name: str):
    with pytest.raises(ValueError, match=f"--metrics must leave out {name} for bicubic, which has no latents"):
        Instruments(("psnr", name), BASELINE, WeightSource())


def test_ifid_that_was_asked_for_needs_training_data(model: EvaluatedAutoencoder, quick_networks: list[str]):
    with pytest.raises(ValueError, match="--training-data must name images of the model's training for ifid, got None"):
        Instruments(("ifid",), model, WeightSource())
    assert Instruments(("ifid",), model, WeightSource(), has_training_latents=True).names == ("ifid",)


@pytest.mark.parametrize("asked", [None, ("rfid",)])
def test_a_file_of_other_weights_is_an_error(tmp_path: Path, asked: Any):
    torch.save({"other": torch.zeros(3)}, tmp_path / INCEPTION_FILE.name)
    with pytest.raises(WrongWeightsError, match=f"{INCEPTION_FILE.name} holds other weights than those of the Incept"):
        Instruments(asked, BASELINE, WeightSource(tmp_path))


def test_metrics_share_a_network_and_are_called_by_its_weights(model: EvaluatedAutoencoder, quick_networks: list[str]):
    asked = ("psnr", "lpips-alex", "rfid", "kid", "fid-dinov2", "ifid")
    chosen = Instruments(asked, model, WeightSource(random=True), has_training_latents=True, sampled=True)
    assert quick_networks == ["rfid", "fid-dinov2"]
    assert chosen.networks["rfid"] is chosen.networks["kid"] is chosen.networks["ifid"]
    assert chosen.networks["rfid"] is not chosen.networks["fid-dinov2"]
    labels = [chosen.label(name) for name in asked]
    assert labels == ["psnr", *(f"{name}-random-weights" for name in asked[1:])]
    words = chosen.protocol(protocol("adm"))
    assert words["name"] == "adm"
    assert words["latent"] == "a sample of the posterior, seed 0"
    assert words["rfid-random-weights"] == f"four corners; weights sha256:e3b0c44298fc1c14; {METRICS['rfid'].protocol}"
    assert list(words)[6:] == labels


def measured(chosen: Instruments, folder: Path, size: int) -> dict[str, Any]:
    at_size = chosen.at(size)
    view = functools.partial(protocol("lanczos").view, size=size)
    metrics = (at_size.image_metrics, at_size.set_metrics)
    measurement = Measurement(BASELINE, open_images(str(folder), workers=0), view, size, *metrics, Processes("cpu"))
    list(measurement.run())
    measurement.join()
    return at_size.result(measurement)


def test_what_cannot_be_measured_at_a_size_is_a_warning(tmp_path: Path):
    small.save_crops(tmp_path, 2)
    chosen = Instruments(("psnr", "lpips-alex", "fwd"), BASELINE, WeightSource(random=True))
    result = measured(chosen, tmp_path, 24)
    assert list(result["metrics"]) == ["psnr"]
    assert result["warnings"][0].startswith("lpips-alex: images must have at least 31 pixels a side")
    assert result["warnings"][1].startswith("fwd: images for fwd must have sides that 16 divides, got (24, 24)")
    assert len(result["warnings"]) == 2
    assert list(measured(chosen, tmp_path, 32)["metrics"]) == ["psnr", "lpips-alex-random-weights", "fwd"]


def test_too_few_images_for_a_metric_are_a_warning(tmp_path: Path, quick_networks: list[str]):
    Image.new("RGB", (40, 40), (9, 99, 199)).save(tmp_path / "one.png")
    chosen = Instruments(("psnr", "rfid", "kid", "fwd"), BASELINE, WeightSource(random=True))
    result = measured(chosen, tmp_path, 32)
    assert list(result["metrics"]) == ["psnr"]
    named = [warning.split(":")[0] for warning in result["warnings"]]
    assert named == ["rfid-random-weights", "kid-random-weights", "fwd"]
    assert all("must be at least 2, got 1; one image has no covariance" in warning for warning in result["warnings"])
    assert result["images"] == 1
    assert result["hash"].startswith("blake2b:")


def test_details_are_beside_the_metrics(tmp_path: Path, quick_networks: list[str]):
    small.save_crops(tmp_path, 3)
    result = measured(Instruments(("psnr", "kid"), BASELINE, WeightSource(random=True)), tmp_path, 32)
    assert list(result["metrics"]) == ["psnr", "kid-random-weights"]
    assert list(result["details"]["kid-random-weights"]) == ["kid_std"]
