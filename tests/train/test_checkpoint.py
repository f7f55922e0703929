"""Is a checkpoint whole or absent, loaded without running anything, and is what does not fit named?"""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from litevae.training.checkpoint import (
    CheckpointError,
    checkpoints,
    load_newest_checkpoint,
    load_state,
    save_checkpoint,
)


def save(folder: Path, step: int, keep: int = 10) -> Path:
    model = nn.Linear(200, 30)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 200)).sum().backward()
    optimizer.step()
    return save_checkpoint(
        folder,
        step=step,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        logged={"l1": torch.tensor(0.5)},
        logged_steps=step,
        keep=keep,
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = save(tmp_path, 12)
    loaded = load_newest_checkpoint(tmp_path)
    assert path.name == "step-000012.pt"
    assert (loaded["step"], loaded["logged_steps"]) == (12, 12)
    torch.testing.assert_close(loaded, torch.load(path, weights_only=True), rtol=0, atol=0)
    model = nn.Linear(200, 30)
    load_state(model, loaded["model"], "here")
    torch.optim.Adam(model.parameters()).load_state_dict(loaded["optimizer"])


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


def test_failed_save_leaves_the_previous_checkpoint_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save(tmp_path, 1).read_bytes()

    def full_disk(content: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001.pt"]
    assert (tmp_path / "step-000001.pt").read_bytes() == before


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
