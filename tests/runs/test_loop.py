"""Does the loop train, stop and resume a kind of run that has nothing of the autoencoder?"""

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from litevae.runs.checkpoint import Checkpoint, load_newest_checkpoint, load_state
from litevae.runs.config import ConfigError, LoopConfig, RunSection
from litevae.runs.learner import Learner
from litevae.runs.loop import Loop, resume, start
from litevae.runs.processes import Processes
from litevae.runs.run_folder import RunFolder


@dataclass
class ModelSection:
    width: int = 3


@dataclass
class LineConfig:
    kind: ClassVar[str] = "line"
    fixed_sections: ClassVar[tuple[str, ...]] = ("model", "run")

    model: ModelSection = field(default_factory=ModelSection)
    train: LoopConfig = field(default_factory=LoopConfig)
    run: RunSection = field(default_factory=RunSection)

    as_dict = dataclasses.asdict


@dataclass
class LineBatches:
    """Points on a line with noise, a function of the step."""

    steps: range
    width: int

    def __iter__(self) -> Iterator[Tensor]:
        for step in self.steps:
            yield torch.randn(4, self.width, generator=torch.Generator().manual_seed(step))

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.steps.start}

    def skipped(self) -> dict[str, int]:
        return {}


class LineLoop(Loop):
    """Fits the sum of its inputs."""

    schema = LineConfig
    learner_names = {"line": "linear layer"}  # noqa: RUF012
    score = "negative_error"
    snapshot_keys = ("line", "adam")

    def __init__(self, config: LineConfig, folder: RunFolder, processes: Processes) -> None:
        super().__init__(config, folder, processes)
        torch.manual_seed(config.train.seed)
        network = nn.Linear(config.model.width, 1)
        self.learner = Learner(network, processes, config.train, config.train.learning_rate, config.train.betas)
        self.learners = [self.learner]

    def error(self, points: Tensor) -> Tensor:
        return (self.learner.network(points)[:, 0] - points.sum(1)).square().mean()

    def update(self, points: Tensor, step: int) -> dict[str, Tensor]:
        error = self.error(points)
        self.learner.backward(error)
        norm, skipped = self.learner.step(self.config.train.schedule_of(step))
        return {"total": error.detach(), "line_gradient_norm": norm, "line_skipped": skipped}

    def introduce(self) -> None:
        self.say("a line")

    def open_batches(self) -> LineBatches:
        return LineBatches(range(self.step, self.config.train.steps), self.config.model.width)

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        error = self.error(torch.eye(self.config.model.width)).item()
        return {"step": self.step, "kind": "evaluation", "negative_error": -error}

    def write_results(self) -> None:
        torch.save(self.learner.network.state_dict(), self.folder.model)

    def snapshot(self) -> dict[str, Any]:
        learner = self.learner
        return {"line": learner.network.state_dict(), "adam": learner.optimizer.state_dict()}

    def load(self, checkpoint: Checkpoint) -> None:
        load_state(self.learner.network, checkpoint["line"], str(self.folder.checkpoints))
        self.learner.restore(checkpoint["adam"], {})

    def start_from(self, path: Path) -> str:
        load_state(self.learner.network, torch.load(path, weights_only=True), str(path))
        return str(path)


def config_of(folder: Path, **train: Any) -> LineConfig:
    common = {"learning_rate": 0.05, "log_every": 3, "evaluate_every": 4, "checkpoint_every": 2, "device": "cpu"}
    return LineConfig(train=LoopConfig(**{"steps": 8, **common, **train}), run=RunSection(str(folder)))


def test_another_kind_trains_and_resumes_with_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(LineLoop, config_of(tmp_path / "whole"), sys.argv) == 0
    assert start(LineLoop, config_of(tmp_path / "broken", steps=4), sys.argv) == 0
    assert resume(LineLoop, tmp_path / "broken", ["train.steps=8"], sys.argv) == 0
    states = [load_newest_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "broken")]
    assert states[0]["step"] == 8
    assert states[0]["best"] == states[1]["best"]
    for name in ("line", "adam", "progress"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=0)
    scores = [line["negative_error"] for line in RunFolder(tmp_path / "whole").evaluations()]
    assert states[0]["best"]["negative_error"] == max(scores) > scores[0]
    lines = [line for line in RunFolder(tmp_path / "whole").read_metrics() if line["kind"] == "train"]
    assert [(line["step"], set(line["loss"]), set(line["gradient_norm"])) for line in lines] == [
        (step, {"total"}, {"line"}) for step in (3, 6, 8)
    ]
    assert "a line" in capsys.readouterr().out


def test_another_kind_starts_from_its_own_model_and_keeps_its_sections(tmp_path: Path) -> None:
    assert start(LineLoop, config_of(tmp_path / "first"), sys.argv) == 0
    model = tmp_path / "first" / "model"
    assert start(LineLoop, config_of(tmp_path / "second", steps=1, start_from=str(model)), sys.argv) == 0
    first = torch.load(tmp_path / "second" / "checkpoints" / "step-000000.pt", weights_only=True)
    torch.testing.assert_close(first["line"], torch.load(model, weights_only=True), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"model.width must stay 3 when a run is resumed, got 5"):
        resume(LineLoop, tmp_path / "first", ["model.width=5"], sys.argv)
    with pytest.raises(ConfigError, match=r"unknown section 'loss' \(sections: model, train, run\)"):
        resume(LineLoop, tmp_path / "first", ["loss.l1_weight=1"], sys.argv)


def test_skipped_steps_are_named_as_their_learner_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = LineLoop.error
    monkeypatch.setattr(LineLoop, "error", lambda loop, points: error(loop, points) * float("inf"))
    with pytest.warns(UserWarning, match=r"the gradient of the linear layer is not finite at step 1"):
        start(LineLoop, config_of(tmp_path / "run", steps=1), sys.argv)


def test_what_was_trained_is_saved_where_measuring_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = LineLoop.measure

    def failing(loop: LineLoop) -> dict[str, Any]:
        if loop.step == 4:
            raise RuntimeError("no image is left")
        return measure(loop)

    monkeypatch.setattr(LineLoop, "measure", failing)
    with pytest.raises(RuntimeError, match="no image is left"):
        start(LineLoop, config_of(tmp_path / "run", checkpoint_every=100), sys.argv)
    assert load_newest_checkpoint(tmp_path / "run" / "checkpoints")["step"] == 4


def test_an_evaluation_of_other_images_is_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = LineLoop.measure

    def changed(loop: LineLoop) -> dict[str, Any]:
        return measure(loop) | ({"changed": ["a"], "negative_error": 1.0} if loop.step == 4 else {})

    monkeypatch.setattr(LineLoop, "measure", changed)
    assert start(LineLoop, config_of(tmp_path / "run"), sys.argv) == 0
    assert load_newest_checkpoint(tmp_path / "run" / "checkpoints")["best"]["step"] != 4
