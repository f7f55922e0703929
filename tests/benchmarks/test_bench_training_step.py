"""Are the updates that are compared of the same losses and gradients, and are the table's ratios what they say?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import bench_training_step as bench
from benchmarks.harness import measure, turns
from benchmarks.harness.report import Results
from benchmarks.harness.schedule import UNLIMITED, Share
from benchmarks.rivals import plain_loop, training_rows
from benchmarks.rivals.training_rows import (
    BFLOAT16,
    CHECKPOINTED,
    FLOAT32,
    OURS,
    PLAIN,
    SD_VAE,
    SMALL,
    TWO_FORWARDS,
    Training,
)
from litevae.losses.perceptual import PerceptualConfig
from litevae.training import networks

SIDE = 32
NARROW = [
    "model.block_out_channels=[32,32,64,64]",
    "discriminator.channels=8",
    f"discriminator.resolution={SIDE}",
    f"data.crop_size={SIDE}",
    f"data.evaluation_size={SIDE}",
]
NARROW_ENCODER = ["model.extraction_channels=8", "model.aggregation_channels=8"]


@pytest.fixture(scope="module")
def perceptual() -> tuple[nn.Module, nn.Module]:
    """Ours and the package's: large, frozen, and of the same random weights every time."""
    ours = networks.build_perceptual(PerceptualConfig(trunk="random"))
    return ours, plain_loop.lpips_package(ours)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch, perceptual: tuple[nn.Module, nn.Module]) -> None:
    monkeypatch.setattr(training_rows, "OVERRIDES", [*training_rows.OVERRIDES, *NARROW])
    for name in set(training_rows.ROWS) - {SD_VAE}:
        monkeypatch.setitem(training_rows.ROWS, name, [*training_rows.ROWS[name], *NARROW_ENCODER])
    monkeypatch.setattr(networks, "build_perceptual", lambda config: perceptual[0])
    monkeypatch.setattr(plain_loop, "lpips_package", lambda ours: perceptual[1])
    training_rows.copied_networks.cache_clear()


def weights(training: Training) -> torch.Tensor:
    states = [network.state_dict() for network in training.networks]
    return torch.cat([tensor.flatten() for state in states for tensor in state.values()])


@pytest.mark.parametrize(
    ("name", "precision"),
    [(SMALL, FLOAT32), (OURS, FLOAT32), (TWO_FORWARDS, FLOAT32), (OURS, BFLOAT16), (PLAIN, BFLOAT16)],
)
def test_every_row_passes_the_check_before_timing(name: str, precision: str):
    training = Training(name, 128, precision)
    before = weights(training)
    training_rows.check(training)
    torch.testing.assert_close(weights(training), before, rtol=0, atol=0)
    assert not any(optimizer.state for optimizer in training.optimizers)
    training()  # nothing stayed switched off
    assert not torch.equal(weights(training), before)


def turned(parameter: nn.Parameter) -> None:
    parameter.register_hook(torch.neg)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda of: setattr(of.source.loss.config, "wavelet_weight", 1.01), "losses, result 1"),
        (lambda of: turned(of.networks[0].decoder.conv_out.weight), "gradients, result 1"),
        (lambda of: turned(of.networks[1].conv_out.parametrizations.weight.original), "gradients, result 2"),
    ],
    ids=["a loss", "the autoencoder's gradient", "the discriminator's gradient"],
)
def test_the_check_refuses_another(change: Callable[[Training], object], what: str):
    training = Training(OURS, 128, FLOAT32)
    change(training)
    with pytest.raises(AssertionError, match=f"LiteVAE-B, {what}: relative error"):
        training_rows.check(training)


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.libraries: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.libraries.add(func.namespace)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [PLAIN, OURS])
def test_only_plain_is_nchw_without_this_project_s_operators(name: str):
    """diffusers' decoder goes over to channels_last behind its attention, by itself."""
    training = Training(name, 128, FLOAT32)
    formats: list[bool] = []
    parts = [training.networks[0].encoder, training.networks[1], training.networks[0].decoder.conv_in]
    convolutions = [module for part in parts for module in part.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        convolution.register_forward_hook(lambda _, inputs, output: formats.append(output.is_contiguous()))
    with Operators() as operators:
        training()
    assert len(formats) > 150
    assert all(formats) == (name == PLAIN)
    assert ("litevae_kernels" in operators.libraries) == (name == OURS)


def test_two_forwards_are_one_more_without_a_graph():
    outputs: dict[str, list[torch.Tensor]] = {PLAIN: [], TWO_FORWARDS: []}
    for name, seen in outputs.items():
        training = Training(name, 128, FLOAT32)
        decoder = training.update.autoencoder.decoder
        decoder.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append(output))
        training(noise=torch.zeros(training_rows.BATCHES[0], 4, SIDE // 8, SIDE // 8))
    assert [output.requires_grad for output in outputs[PLAIN]] == [True]
    assert [output.requires_grad for output in outputs[TWO_FORWARDS]] == [True, False]
    first, second = outputs[TWO_FORWARDS]
    assert not torch.equal(first, second)  # the autoencoder has learned in between


@pytest.mark.parametrize("name", [PLAIN, OURS])
def test_state_is_weights_and_moments_and_peak_memory_more(name: str):
    training = Training(name, 128, FLOAT32)
    parameters = [parameter for network in training.networks for parameter in network.parameters()]
    before, weights_before = training.state_bytes(), weights(training)
    training.make_moments()
    assert torch.equal(weights(training), weights_before)
    moments = 2 * sum(parameter.numel() for parameter in parameters)
    assert training.state_bytes() - before == 4 * (moments + len(parameters))  # float32; Adam also counts its steps
    assert all(parameter.grad is None for parameter in parameters)
    assert bench.peak_mib(training) > 1.1 * training.state_bytes() / measure.MIB


class Fixture:
    """Of pytest-benchmark's, what the test fills."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}


def test_the_table_s_ratios(monkeypatch: pytest.MonkeyPatch):
    seconds = {SD_VAE: 6.0, PLAIN: 5.0, SMALL: 3.0, OURS: 4.0, bench.PLAIN_FLOAT32: 8.0, bench.OURS_AT_HALF: 1.0}
    peaks = {SD_VAE: 60.0, PLAIN: 50.0, SMALL: 30.0, OURS: 40.0, bench.PLAIN_FLOAT32: 80.0, bench.OURS_AT_HALF: 10.0}
    made: dict[str, Any] = {}
    labels = {(OURS, 128): bench.OURS_AT_HALF, (PLAIN, FLOAT32): bench.PLAIN_FLOAT32}

    def time_interleaved(benchmark: Any, step: Any, rivals: Mapping[str, Any], share: Share) -> measure.Timing:
        made.update({name: one.step for name, one in {OURS: step, **rivals}.items()})
        # Round by round the machine slows down: the ratios must not notice.
        rounds = {name: [seconds[name] * slower for slower in (1, 2, 3, 4, 5)] for name in made}
        return measure.Timing(rounds.pop(OURS), rounds, 1)

    def peak_of(training: Training) -> float:
        special = labels.get((training.name, training.resolution)) or labels.get((training.name, training.precision))
        return peaks[special or training.name]

    monkeypatch.setattr(turns, "time_interleaved", time_interleaved)
    monkeypatch.setattr(turns, "warmed", lambda step, share, first_s: measure.Round(step, 1, 1.0))
    monkeypatch.setattr(bench, "peak_mib", peak_of)
    monkeypatch.setattr(bench, "check", lambda training: None)
    monkeypatch.setitem(bench.CASES, (256, BFLOAT16), [SD_VAE, PLAIN, SMALL, OURS])
    results = Results()
    bench.test_training_step(bench.TrainingCase(256, BFLOAT16), Fixture(), results, UNLIMITED)
    assert made[bench.PLAIN_FLOAT32].precision == FLOAT32
    assert made[bench.OURS_AT_HALF].resolution == 128
    rows = {
        name: results.tables["training_step"].rows[bench.label(name, 256, BFLOAT16)] for name in (PLAIN, SMALL, OURS)
    }
    ours = rows[OURS]
    assert ours["img_per_s"] == pytest.approx(training_rows.BATCHES[-1] / 12)
    expected = {"plain": 5 / 4, "plain_float32": 2, "sd": 6 / 4}
    assert {key: ours[f"speed_to_{key}"] for key in expected} == pytest.approx(expected)
    assert ours["speed_of_half"] == pytest.approx(4)
    expected = {"plain": 0.8, "plain_float32": 0.5, "sd": 40 / 60}
    assert {key: ours[f"peak_to_{key}"] for key in expected} == pytest.approx(expected)
    assert rows[PLAIN]["speed_to_plain"] == 1
    assert rows[PLAIN]["speed_to_plain_float32"] == pytest.approx(8 / 5)
    assert rows[SMALL]["speed_to_sd"] == pytest.approx(2)
    assert "speed_to_plain" not in rows[SMALL]  # another model


@pytest.mark.parametrize("on_gpu", [False, True])
def test_every_case_has_the_timed_row_and_labels_of_its_own(on_gpu: bool):
    cases = training_rows.cases(on_gpu)
    labels = [bench.label(name, *case) for case in cases for name in cases[case]]
    assert len(set(labels)) == len(labels)
    assert all(OURS in names and set(names) <= set(training_rows.ROWS) for names in cases.values())
    assert (CHECKPOINTED in cases[128, BFLOAT16]) == on_gpu
