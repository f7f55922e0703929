"""Does from_pretrained return what save_pretrained wrote, and refuse everything else?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from litevae import LiteVAE

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(make_model) -> LiteVAE:
    return make_model(decoder_normalization="smc", scaling_factor=0.25, shift_factor=0.5)


@pytest.fixture
def folder(model, tmp_path) -> Path:
    folder = tmp_path / "runs" / "x"
    model.save_pretrained(folder)
    return folder


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_round_trip_is_exact(model, folder, image, low_cpu_mem_usage):
    if low_cpu_mem_usage:
        pytest.importorskip("accelerate", reason="accelerate is not installed")
    loaded = LiteVAE.from_pretrained(folder, low_cpu_mem_usage=low_cpu_mem_usage)
    assert loaded.architecture == model.architecture
    assert not loaded.training
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(loaded(image).sample, model(image).sample)


def test_config_json_is_complete_and_plain(model, folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["_class_name"] == "LiteVAE"
    assert config["block_out_channels"] == [8, 8, 16, 16]
    assert {name for name in config if not name.startswith("_")} == set(vars(model.architecture))


def test_shards_subfolders_variants_and_dtypes(model, tmp_path, image):
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    model.save_pretrained(tmp_path / "pipeline" / "vae", variant="ema")
    for loaded in (
        LiteVAE.from_pretrained(tmp_path / "sharded"),
        LiteVAE.from_pretrained(tmp_path / "pipeline", subfolder="vae", variant="ema"),
    ):
        assert torch.equal(loaded(image).sample, model(image).sample)
    half = LiteVAE.from_pretrained(str(tmp_path / "sharded"), torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half(image.bfloat16()).sample, model.to(torch.bfloat16)(image.bfloat16()).sample)


def test_loading_info_is_given_if_asked(folder):
    _, info = LiteVAE.from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_cut_off_weights_are_refused(folder, kept):
    content = (folder / WEIGHTS).read_bytes()
    size = int(len(content) * kept) if isinstance(kept, float) else kept
    (folder / WEIGHTS).write_bytes(content[:size])
    with pytest.raises(ValueError, match=rf"{WEIGHTS} must be a whole safetensors file.*copy or download it again"):
        LiteVAE.from_pretrained(folder)


def test_a_missing_tensor_is_named(folder):
    state = load_file(folder / WEIGHTS)
    del state["decoder.conv_in.weight"], state["encoder.aggregation.conv_in.bias"]
    save_file(state, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"decoder\.conv_in\.weight is missing \(2 such tensors\)"):
        LiteVAE.from_pretrained(folder)


def test_an_unexpected_tensor_is_named(folder):
    save_file({**load_file(folder / WEIGHTS), "surplus": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="surplus has no place in the model"):
        LiteVAE.from_pretrained(folder)


def test_a_wrong_shape_is_named(folder):
    state = load_file(folder / WEIGHTS)
    state["decoder.conv_in.weight"] = torch.zeros(16, 5, 3, 3)
    save_file(state, folder / WEIGHTS)
    expected = r"decoder\.conv_in\.weight must have shape \[16, 4, 3, 3\], got \[16, 5, 3, 3\] \(1 tensors differ\)"
    with pytest.raises(ValueError, match=expected):
        LiteVAE.from_pretrained(folder)


def test_a_config_of_other_weights_is_refused(folder):
    change_config(folder, latent_channels=8)
    with pytest.raises(ValueError, match=r"must have shape .* got .* use the config\.json saved with these weights"):
        LiteVAE.from_pretrained(folder)


def test_what_the_hub_gave_is_checked_after_loading(model, folder, monkeypatch):
    """A model of the Hub has no folder to look into first; diffusers alone would only warn."""
    state = load_file(folder / WEIGHTS)
    del state["decoder.conv_in.weight"]
    save_file(state, folder / WEIGHTS)
    monkeypatch.setattr("litevae.models.pretrained.check_before_loading", lambda *arguments: None)
    with pytest.raises(ValueError, match=r"decoder\.conv_in\.weight is missing"):
        LiteVAE.from_pretrained(folder, low_cpu_mem_usage=False)


def test_a_missing_folder_is_refused_at_once_and_its_neighbours_named(folder):
    with pytest.raises(FileNotFoundError, match=r"runs/y must be an existing folder, got none of that name.*has x"):
        LiteVAE.from_pretrained(folder.parent / "y")
    for path in ("./no/such/folder", "a/b/c", "~/no_such_folder_of_mine"):
        with pytest.raises(FileNotFoundError, match="must be an existing folder"):
            LiteVAE.from_pretrained(path)


def test_a_relative_name_beside_existing_folders_does_not_ask_the_hub(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    with pytest.raises(FileNotFoundError, match="runs/y must be an existing folder"):
        LiteVAE.from_pretrained("runs/y")
    assert LiteVAE.from_pretrained("runs/x").config.scaling_factor == 0.25


def test_folders_without_a_model_are_refused(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must have a config\.json, got none; did you mean .*runs/x\?"):
        LiteVAE.from_pretrained(folder.parent)
    with pytest.raises(NotADirectoryError, match=r"got a file; pass .*runs/x"):
        LiteVAE.from_pretrained(folder / WEIGHTS)
    shutil.copytree(folder, tmp_path / "half")
    (tmp_path / "half" / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=f"must have its weights, {WEIGHTS}, got none"):
        LiteVAE.from_pretrained(tmp_path / "half")
    (tmp_path / "half" / "config.json").write_text('{"latent_channels": 4,')
    with pytest.raises(ValueError, match=r"config\.json must be JSON"):
        LiteVAE.from_pretrained(tmp_path / "half")


def test_a_model_of_another_class_is_refused(tmp_path):
    AutoencoderKL(block_out_channels=(32,)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"that of a LiteVAE, got one of AutoencoderKL; load it with AutoencoderKL"):
        LiteVAE.from_pretrained(tmp_path)


def test_unknown_and_bad_arguments_are_refused(folder):
    change_config(folder, dropuot=0.1)
    with pytest.raises(ValueError, match="'dropuot' is no argument of LiteVAE; did you mean 'dropout'"):
        LiteVAE.from_pretrained(folder)
    with pytest.raises(ValueError, match="'dropuot' is no argument of LiteVAE"):
        LiteVAE.from_config(LiteVAE.load_config(folder))
    change_config(folder, dropuot=None, dropout=float("nan"))
    config = json.loads((folder / "config.json").read_text())
    del config["dropuot"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1, got nan"):
        LiteVAE.from_pretrained(folder)
