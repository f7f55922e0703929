"""Is a checkpoint whole or absent, loaded without running anything, and is what does not fit named?"""

import pickle
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from litevae.runs.checkpoint import (
    CheckpointError,
    SaveError,
    checkpoints,
    load_newest_checkpoint,
    load_state,
    save_checkpoint,
)


def save(folder: Path, step: int, keep: int = 10, best: dict[str, Any] | None = None) -> Path:
    model = nn.Linear(200, 30)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 200)).sum().backward()
    optimizer.step()
    content = {
        "step": step,
        "model": model.state_dict(),
        "ema": None,
        "discriminator": None,
        "optimizers": [optimizer.state_dict()],
        "scalers": [{}],
        "data": [{}],
        "progress": {"window": [{"l1": 0.5}], "skipped": 0, "skipped_in_a_row": 0},
        "best": best,
    }
    return save_checkpoint(folder, content, keep)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = save(tmp_path, 12)
    loaded = load_newest_checkpoint(tmp_path)
    assert path.name == "step-000012.pt"
    assert (loaded["step"], loaded["progress"]["window"]) == (12, [{"l1": 0.5}])
    torch.testing.assert_close(loaded["model"], torch.load(path, weights_only=True)["model"], rtol=0, atol=0)
    model = nn.Linear(200, 30)
    load_state(model, loaded["model"], "here")
    torch.optim.Adam(model.parameters()).load_state_dict(loaded["optimizers"][0])


def test_the_best_is_kept_beside_the_newest(tmp_path: Path) -> None:
    for step in range(2, 12, 2):
        save(tmp_path, step, keep=2, best={"step": 4 if step >= 4 else 2, "psnr": 20.0})
    assert [step for step, _ in checkpoints(tmp_path)] == [4, 8, 10]


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    for step in (5, 999_999, 1_000_000, 1_000_001):  # seven digits sort wrongly as text
        save(tmp_path, step, keep=2)
    assert [step for step, _ in checkpoints(tmp_path)] == [1_000_000, 1_000_001]


def test_a_damaged_later_checkpoint_does_not_push_out_the_good_ones(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (tmp_path / "step-000006.pt").write_bytes(b"damaged")
    save(tmp_path, 4, keep=1)
    assert load_newest_checkpoint(tmp_path)["step"] == 4


@pytest.mark.parametrize("damage", ["empty", "half", "one byte", "text", "another program's"])
def test_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    content = bytearray(path.read_bytes())
    if damage == "another program's":
        torch.save({"step": 2}, path)
    else:
        middle = content.index(bytes(torch.load(path, weights_only=True)["model"]["weight"].numpy().tobytes()[:64]))
        content[middle + 8] ^= 0x40
        broken = {"empty": b"", "half": content[: len(content) // 2], "one byte": content, "text": b"not a checkpoint"}
        path.write_bytes(broken[damage])
    with pytest.warns(UserWarning, match=r"damaged checkpoint .*step-000002\.pt is passed over"):
        assert load_newest_checkpoint(tmp_path)["step"] == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")])
def test_failed_save_leaves_the_previous_checkpoint_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """PyTorch raises a RuntimeError of its own in the middle of a file."""
    before = save(tmp_path, 1).read_bytes()

    def full_disk(content: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(SaveError, match=r"cannot write the checkpoint .*: (No space left|unexpected pos)"):
        save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001.pt"]
    assert (tmp_path / "step-000001.pt").read_bytes() == before


def test_file_that_may_not_grow(tmp_path: Path) -> None:
    """A real limit of the system, as a full disk or a quota is one: half a file is written, then refused."""
    before = save(tmp_path, 1).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(SaveError, match=r"cannot write the checkpoint .*step-000002\.pt: .*; the older ones"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001.pt"]
    assert load_newest_checkpoint(tmp_path)["step"] == 1


class Payload:
    """What a hostile file would run when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('code from a checkpoint ran')",))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_nothing_from_a_file_is_executed(tmp_path: Path, form: str) -> None:
    path = tmp_path / "step-000001.pt"
    if form == "torch":
        torch.save({"step": Payload()}, path)
    else:
        path.write_bytes(pickle.dumps(Payload()))
    with pytest.warns(UserWarning, match="damaged checkpoint"), pytest.raises(CheckpointError, match="1 damaged"):
        load_newest_checkpoint(tmp_path)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint: there is nothing to resume"):
        load_newest_checkpoint(tmp_path / "nowhere")


def test_weights_that_do_not_fit_are_named() -> None:
    state = nn.Linear(3, 2).state_dict()
    with pytest.raises(CheckpointError, match=r"weight must have shape \(2, 4\), got \(2, 3\)"):
        load_state(nn.Linear(4, 2), state, "here")
    with pytest.raises(CheckpointError, match="here does not fit the model: bias is not a parameter of it"):
        load_state(nn.Linear(3, 2, bias=False), state, "here")
    with pytest.raises(CheckpointError, match="bias is missing"):
        load_state(nn.Linear(3, 2), {"weight": state["weight"]}, "here")
