"""Does a run survive SIGKILL, at any moment?"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litevae import train

from .. import children

Run = Callable[..., tuple[int, Path]]


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_many_times_equals_an_unbroken_one(run: Run, recipe: Path, tmp_path: Path, kills: int) -> None:
    text = (
        recipe.read_text().replace("checkpoint_every: 2", "checkpoint_every: 3").replace("steps: 6", "steps: 5000", 1)
    )
    (tmp_path / "long.yaml").write_text(text.replace("evaluate_every: 4", "evaluate_every: 100"))
    folder = tmp_path / "killed"
    program = Path(__file__).with_name("kill_repeatedly.py")
    command = [sys.executable, str(program), str(tmp_path / "long.yaml"), str(folder), str(kills), "0"]
    output = children.run(command, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert output.returncode == 0, output.stderr
    killed = json.loads(output.stdout.splitlines()[-1])
    assert len(killed["steps"]) == kills
    assert killed["steps"] == sorted(killed["steps"])  # nothing saved is ever lost
    assert killed["in_saves"] >= kills // 4
    reached = killed["steps"][-1]
    assert reached > 3

    end = f"train.steps={reached + 2}"
    assert train.main(["--resume", str(folder), end]) == 0
    assert not list(folder.rglob(".*.part*"))
    code, unbroken = run("unbroken", end, "train.evaluate_every=100", "train.checkpoint_every=1000")
    assert code == 0
    name = f"step-{reached + 2:06d}.pt"
    states = [torch.load(path / "checkpoints" / name, weights_only=True) for path in (folder, unbroken)]
    for key in ("model", "optimizers"):
        torch.testing.assert_close(states[0][key], states[1][key], rtol=0, atol=0)
