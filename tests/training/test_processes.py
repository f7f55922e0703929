"""Do two processes train as one with the double batch?"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae import train
from litevae.runs.config import ConfigError
from litevae.runs.processes import Processes

from .. import children
from . import two_processes, two_stopping_processes
from .runs import assert_same_training, checkpoint

Run = Callable[..., tuple[int, Path]]
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return children.run([*LAUNCH, *command], timeout=200, env=environment)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What process 0 and process 1 have after a few steps."""
    folder = tmp_path_factory.mktemp("two")
    output = launch(two_processes.__file__, str(folder))
    assert output.returncode == 0, output.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("variant", two_processes.VARIANTS)
def test_every_parameter_is_synchronised(results: list[dict[str, Any]], variant: str) -> None:
    """Also of the discriminator, whose forward in the generator step goes past DistributedDataParallel."""
    first, second = (result[variant] for result in results)
    torch.testing.assert_close(first["networks"], second["networks"], rtol=0, atol=0)
    torch.testing.assert_close(first["ema"], second["ema"], rtol=0, atol=0)


@pytest.mark.parametrize("variant", two_processes.VARIANTS)
def test_gradients_equal_one_process_with_the_whole_batch(results: list[dict[str, Any]], variant: str) -> None:
    """Weights after four SGD steps, with R1, and accumulation or the adaptive weight of Eq. (2)."""
    torch.set_num_threads(1)
    alone, shared = two_processes.run(Processes("cpu"), variant), results[0][variant]
    for index in range(2):
        torch.testing.assert_close(shared["networks"][index], alone["networks"][index], rtol=2e-4, atol=2e-6)
    torch.testing.assert_close(shared["ema"], alone["ema"], rtol=2e-4, atol=2e-6)
    for terms, single in zip(shared["terms"], alone["terms"], strict=True):
        for name, value in single.items():
            torch.testing.assert_close(terms[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_processes_hear_each_other(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["any"] == [True, False]
        assert result["gathered"] == [{"rank": 0}, {"rank": 1}]


def test_batch_that_processes_cannot_share() -> None:
    processes = Processes("cpu")
    processes.world_size = 3
    with pytest.raises(
        ConfigError, match=r"train.batch_size must be a multiple of 6 \(the 3 processes times .*, got 16"
    ):
        processes.share_of(16, 2)


def test_sharded_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator, DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ConfigError, match=r"one process or plain data parallelism, got FSDP; .* without FSDP"):
        Processes("cpu")


@pytest.mark.slow
def test_processes_evaluate_save_and_stop_together(recipe: Path, tmp_path: Path) -> None:
    """One comes late, one hears SIGTERM, one alone knows which step is the best: none waits for ever for the others."""
    folder = tmp_path / "two"
    options = ("train.evaluate_every=2", "train.checkpoint_every=100", "train.learning_rate=0.01", "train.steps=100")
    output = launch(two_stopping_processes.__file__, str(recipe), f"run.dir={folder}", *options)
    assert "stopped at step 3" in output.stdout, output.stderr
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-000002.pt", "step-000003.pt"]
    assert torch.load(folder / "checkpoints" / "step-000003.pt", weights_only=True)["best"]["step"] == 2
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [0, 2]
    assert train.main(["--resume", str(folder), "train.steps=4"]) == 0


def test_torchrun_trains_resumes_and_equals_one_process(recipe: Path, run: Run, tmp_path: Path) -> None:
    """The program itself: data divided, one process writes, the checkpoint is one process's too."""
    folder = tmp_path / "two"
    output = launch("-m", "litevae.train", str(recipe), f"run.dir={folder}", "train.steps=4")
    assert output.returncode == 0, output.stderr
    assert output.stdout.count("held out") == 1
    assert "in 2 processes, a CPU each" in output.stdout
    assert train.main(["--resume", str(folder), "train.steps=6"]) == 0  # on with one process
    _, alone = run("alone")
    _, start = run("start", "train.steps=1", "train.learning_rate=1e-30")
    assert_same_training(checkpoint(folder, 6), checkpoint(alone, 6), checkpoint(start, 1))
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (folder, alone)
    ]
    scales = [[line for line in part if line["kind"] == "latents"] for part in lines]
    assert [line["step"] for line in scales[0]] == [4, 6]
    assert scales[0][1]["std"] == pytest.approx(scales[1][0]["std"], rel=1e-4)
    losses = [[line["loss"]["l1"] for line in part if line["kind"] == "train"] for part in lines]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
