"""Do the latents of a trained model have unit variance for a pipeline, and does the run show their scale?"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from litevae import LiteVAE, load_model, train
from litevae.data import open_data
from litevae.evaluation.latents import NoScaleError
from litevae.runs.run_folder import RunFolder
from litevae.runs.stopping import StopRequest
from litevae.training import latent_scale
from litevae.training.config import MEASURED_KEYS, RunConfig
from litevae.training.latent_scale import describe_scale

from .runs import logged

Run = Callable[..., tuple[int, Path]]
BASELINE = (
    "model.kind=sd-vae",
    *(f"model.{part}_{what}=null" for part in ("extraction", "aggregation") for what in ("channels", "multipliers")),
)


def crops_of(folder: Path, count: int) -> Tensor:
    """The first crops that a run was trained on, in [-1, 1]."""
    config = RunFolder(folder).read_config(RunConfig)
    samples = open_data(config.data, config.train.seed).samples
    assert samples is not None
    return torch.stack([samples.crop(n) for n in range(count)]).float() / 127.5 - 1


@torch.no_grad()
def samples_of(model: Any, images: Tensor, draws: int = 100) -> Tensor:
    posterior = model.encode(images).latent_dist
    generator = torch.Generator().manual_seed(0)
    return torch.cat([posterior.sample(generator) for _ in range(draws)]).double()


@contextmanager
def messages_of_diffusers() -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def test_a_pipeline_sees_latents_of_unit_variance(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the averaged weights, which are what the run leaves."""
    code, folder = run("run", "train.steps=8", "train.learning_rate=0.01", "train.ema_decay=0.9")
    assert code == 0
    model = LiteVAE.from_pretrained(folder / "model").eval()
    config = model.architecture
    images = crops_of(folder, latent_scale.FEWEST_CROPS)
    posterior = model.encode(images).latent_dist
    means, var = posterior.mean.detach().double(), posterior.var.detach().double()
    # E[z^2] - E[z]^2 over all images and places; the model's float32 rounds otherwise in other batches.
    np.testing.assert_allclose(config.latent_channel_means, means.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    second = (means.square() + var).mean(dim=(0, 2, 3))
    expected = (second - means.mean(dim=(0, 2, 3)).square()).sqrt()
    np.testing.assert_allclose(config.latent_channel_stds, expected, rtol=1e-4)
    std = ((means.square() + var).mean() - means.mean().square()).sqrt().item()
    assert config.scaling_factor == pytest.approx(1 / std, rel=1e-4)
    assert config.shift_factor is None
    assert not {"latents_mean", "latents_std"} & model.config.keys()
    # as DiTPipeline's training has it; 102,400 elements: six standard errors of their std
    scaled = samples_of(model, images) * model.config.scaling_factor
    assert scaled.std().item() == pytest.approx(1, abs=6 / (2 * scaled.numel()) ** 0.5)
    assert abs(std - 1) > 0.1  # not by itself

    (line,) = logged(folder, "latents")
    assert line["step"] == 8
    assert line["crops"] == len(images)
    assert (line["scaling_factor"], 1 / line["std"]) == (config.scaling_factor,) * 2
    assert tuple(line["channel_stds"]) == config.latent_channel_stds
    assert tuple(line["channel_means"]) == config.latent_channel_means
    assert f"\nlatents   {describe_scale(line)}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_more_training_measures_more_crops(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_scale, "FEWEST_CROPS", 2)
    monkeypatch.setattr(latent_scale, "MOST_CROPS", 5)
    for steps, crops in ((1, 2), (16, 4), (24, 5)):
        _, folder = run(f"run-{steps}", f"train.steps={steps}", "train.log_every=100", "train.evaluate_every=100")
        assert logged(folder, "latents")[0]["crops"] == crops
    monkeypatch.setattr(latent_scale, "PIXELS_AT_ONCE", 2 * 16**2)
    _, folder = run("two-at-once", "train.steps=24", "train.log_every=100", "train.evaluate_every=100")
    line = logged(folder, "latents")[0]
    assert line["crops"] == 6  # three times two
    means = load_model(folder).encode(crops_of(folder, 6)).latent_dist.mean.detach()  # type: ignore[union-attr]
    np.testing.assert_allclose(line["channel_means"], means.double().mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("given", [1.0, 0.25])
def test_a_scale_that_the_user_gives_stays(run: Run, capsys: pytest.CaptureFixture[str], given: float) -> None:
    _, folder = run("run", "train.steps=1", f"model.scaling_factor={given}")
    config = LiteVAE.from_pretrained(folder / "model").architecture
    (line,) = logged(folder, "latents")
    assert config.scaling_factor == line["scaling_factor"] == given
    assert config.latent_channel_stds == tuple(line["channel_stds"])
    shown = f"scaling_factor {given:g} as it was given (1 / std is {1 / line['std']:.4g})\n"
    assert shown in capsys.readouterr().out


def test_diffusers_loads_the_baseline_with_its_scale_and_without_a_warning(run: Run) -> None:
    _, folder = run("run", *BASELINE, "train.steps=2")
    (line,) = logged(folder, "latents")
    with messages_of_diffusers() as messages:
        vae: Any = AutoencoderKL.from_pretrained(folder / "model")
    assert messages == []
    assert vae.config.scaling_factor == 1 / line["std"]
    assert vae.config.latents_mean is vae.config.latents_std is None
    scaled = samples_of(vae, crops_of(folder, line["crops"])) * vae.config.scaling_factor
    assert scaled.std().item() == pytest.approx(1, abs=6 / (2 * scaled.numel()) ** 0.5)


def test_a_frozen_encoder_keeps_the_scale_of_its_model(run: Run) -> None:
    """All that the config of a saved AutoencoderKL says of it, diffusers' default included."""
    _, first = run("first", *BASELINE, "train.steps=1")
    file = first / "model" / "config.json"
    values = {**json.loads(file.read_text()), "shift_factor": 0.1, "latents_std": [1, 2, 3, 4]}
    del values["scaling_factor"]
    file.write_text(json.dumps(values))

    def scale(name: str, *options: str) -> list[Any]:
        start = (*BASELINE, f"train.start_from={first / 'model'}", "train.steps=1", "train.tensorboard=false")
        code, folder = run(name, *start, *options)
        assert code == 0
        config: Any = AutoencoderKL.load_config(folder / "model")
        found = [config[key] for key in ("scaling_factor", "shift_factor", "latents_std")]
        return [*found, logged(folder, "latents")[0]]

    *kept, line = scale("encoder", "train.freeze=encoder")
    assert (kept, line["scaling_factor"]) == ([0.18215, 0.1, [1, 2, 3, 4]], 0.18215)
    *given, _ = scale("given", "train.freeze=encoder", "model.scaling_factor=0.5")
    assert given == [0.5, 0.1, [1, 2, 3, 4]]
    for options in (["train.freeze=decoder"], []):
        *measured, line = scale(f"other{len(options)}", *options)
        assert measured == [1 / line["std"], None, None]


def test_a_frozen_encoder_without_a_scale_is_measured(run: Run) -> None:
    """One of a run that was stopped, and one of a run that has gone on since its results were written."""
    _, first = run("first", "train.steps=2")
    (first / "checkpoints" / "step-000002.pt").unlink()
    _, tuned = run("tuned", f"train.start_from={first}", "train.freeze=encoder", "train.steps=1", "train.seed=1")
    scales = [load_model(folder).config.scaling_factor for folder in (first, tuned)]  # type: ignore[union-attr]
    assert scales[0] != scales[1] == 1 / logged(tuned, "latents")[0]["std"]


def test_a_resumed_run_shows_its_scale_and_measures_it_anew(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = run("run", "train.steps=2")
    capsys.readouterr()
    assert train.main(["--resume", str(folder), "train.steps=4"]) == 0
    before, after = logged(folder, "latents")
    assert (before["step"], after["step"]) == (2, 4)
    assert before["std"] != after["std"]
    text = capsys.readouterr().out
    start, end = (text.index(f"latents   {describe_scale(line)}\n") for line in (before, after))
    assert start < text.index("held-out") < end
    assert LiteVAE.from_pretrained(folder / "model").architecture.scaling_factor == 1 / after["std"]
    _, unbroken = run("unbroken", "train.steps=4")
    assert logged(unbroken, "latents") == [after]


def test_a_stopped_run_has_no_scale_until_its_end(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "requested", True)
        code, folder = run("run", "train.steps=4")
    assert (code, logged(folder, "latents")) == (143, [])
    assert train.main(["--resume", str(folder)]) == 0
    (line,) = logged(folder, "latents")
    assert capsys.readouterr().out.count("latents   std") == 1
    assert line == logged(run("unbroken", "train.steps=4")[1], "latents")[0]


def test_a_run_of_an_earlier_version_gets_a_scale(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = run("run", "train.steps=2")
    metrics, config = folder / "metrics.jsonl", folder / "model" / "config.json"
    lines = [line for line in metrics.read_text().splitlines() if json.loads(line)["kind"] != "latents"]
    metrics.write_text("\n".join(lines) + "\n")
    values = {**json.loads(config.read_text()), "scaling_factor": 1.0}
    config.write_text(json.dumps({key: value for key, value in values.items() if key not in MEASURED_KEYS}))
    old = load_model(folder)
    assert isinstance(old, LiteVAE)
    assert (old.architecture.scaling_factor, old.architecture.latent_channel_means) == (1.0, None)
    capsys.readouterr()
    assert train.main(["--resume", str(folder), "train.steps=4"]) == 0
    assert capsys.readouterr().out.count("latents   std") == 1
    assert LiteVAE.from_pretrained(folder / "model").architecture.latent_channel_means is not None


def test_latents_without_a_scale_leave_a_model_all_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise NoScaleError("latents must vary")

    monkeypatch.setattr(latent_scale, "measure_latents", refuse)
    code, folder = run("run", "train.steps=1")
    assert code == 0
    assert "warning: latents must vary; the model's scaling_factor is left as it was" in capsys.readouterr().err
    assert logged(folder, "latents") == []
    config = LiteVAE.from_pretrained(folder / "model").architecture
    assert (config.scaling_factor, config.latent_channel_stds) == (1.0, None)
