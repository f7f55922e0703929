"""Does `load_model` find out which class wrote a folder, and say what is there where nothing can be loaded?"""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from litevae import LiteVAE
from litevae.loading import load_autoencoder, load_model
from litevae.models.baseline import StableDiffusionVAE
from litevae.runs.checkpoint import save_checkpoint
from litevae.training.config import ModelConfig, RunConfig
from litevae.training.networks import build_autoencoder

WIDTHS = (8, 8, 8, 8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """litevae, baseline and diffusers: folders by the three classes that can be loaded; unet: by one that cannot."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    LiteVAE.from_preset("S", block_out_channels=WIDTHS, layers_per_block=1).save_pretrained(folder / "litevae")
    StableDiffusionVAE.from_architecture(block_out_channels=WIDTHS).save_pretrained(folder / "baseline")
    diffusers.AutoencoderKL(norm_num_groups=2, block_out_channels=(4,)).save_pretrained(folder / "diffusers")
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "add_attention": False}
    unet = diffusers.UNet2DModel(block_out_channels=(8,), norm_num_groups=2, **blocks)
    unet.save_pretrained(folder / "unet")
    return folder


@pytest.mark.parametrize(
    ("name", "kind"), [("litevae", LiteVAE), ("baseline", StableDiffusionVAE), ("diffusers", StableDiffusionVAE)]
)
def test_the_class_is_found_out(saved: Path, tmp_path: Path, name: str, kind: type) -> None:
    """In a folder and in the model/ of a run, by a path or a string."""
    shutil.copytree(saved / name, tmp_path / "run" / "model")
    expected = kind.from_pretrained(saved / name).state_dict()
    for model in (load_model(saved / name), load_model(str(tmp_path / "run"))):
        assert type(model) is kind
        assert not model.training
        torch.testing.assert_close(dict(model.state_dict()), dict(expected), rtol=0, atol=0)


def unfinished_run(folder: Path, averages: bool) -> tuple[nn.Module, nn.Module]:
    """Two checkpoints; returns the model of the newest and its average."""
    config = RunConfig(model=ModelConfig(block_out_channels=list(WIDTHS), layers_per_block=1))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config.as_dict())))
    for step in (2, 4):
        model, average = (build_autoencoder(config.model) for _ in range(2))
        content = {"step": step, "model": model.state_dict(), "ema": average.state_dict() if averages else None}
        rest = {"discriminator": None, "optimizers": [], "scalers": [], "data": [], "progress": {}, "best": None}
        save_checkpoint(folder / "checkpoints", {**content, **rest}, keep=2)
    return model, average


@pytest.mark.parametrize("averages", [False, True])
def test_an_unfinished_run_gives_its_newest_checkpoint(tmp_path: Path, averages: bool) -> None:
    expected = unfinished_run(tmp_path / "run", averages)[averages].state_dict()
    with pytest.warns(UserWarning, match=r"run is not finished: using its checkpoint of step 4"):
        model = load_model(tmp_path / "run")
    assert not model.training
    torch.testing.assert_close(dict(model.state_dict()), dict(expected), rtol=0, atol=0)


def test_an_unfinished_run_without_a_checkpoint(tmp_path: Path) -> None:
    unfinished_run(tmp_path / "run", averages=False)
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"run must hold model/ or a whole checkpoint, .* holds no checkpoint"):
        load_model(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("model: [1")
    with pytest.raises(ValueError, match=r"run must hold model/ or a whole checkpoint, .*config\.yaml"):
        load_model(tmp_path / "run")


def test_an_unfinished_run_of_another_kind(tmp_path: Path) -> None:
    unfinished_run(tmp_path / "run", averages=False)
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        content = torch.load(file, weights_only=True)
        del content["model"]
        torch.save(content, file)
    with (
        pytest.warns(UserWarning, match="is passed over"),
        pytest.raises(ValueError, match=r"run must hold model/ or a whole checkpoint, .* holds no whole checkpoint"),
    ):
        load_model(tmp_path / "run")


def test_what_is_no_model_is_named_with_what_is_there(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        "runs/typo": "got nothing of that name",
        "typo": "got nothing of that name",
        str(tmp_path / "empty"): r"got a folder with neither config.json nor config.yaml \(it is empty\)",
        str(saved): r"\(baseline, diffusers, litevae, unet\); did you mean \S+/baseline or \S+/diffusers or \S+/lit",
        str(saved / "litvae"): r"nothing of that name; did you mean .*/litevae\?",
        str(saved / "litevae" / "config.json"): r"got a file; did you mean \S+/litevae\?",
    }
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, message in cases.items():
        with pytest.raises(FileNotFoundError, match=message) as error:
            load_model(name)
        assert str(error.value).startswith(f"{name} must be a run's folder")


def test_folders_that_cannot_be_read_are_passed_over(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Denied by a patch: no folder is unreadable to root."""
    shutil.copytree(saved / "litevae", tmp_path / "litevae")
    (tmp_path / "private").mkdir()
    is_file, iterdir = Path.is_file, Path.iterdir

    def denied(original: Callable[..., Any], folder: str) -> Callable[..., Any]:
        def ask(path: Path) -> Any:
            if folder in (path.name, path.parent.name):
                raise PermissionError(errno.EACCES, "Permission denied")
            return original(path)

        return ask

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", denied(is_file, "private"))
        with pytest.raises(FileNotFoundError, match=r"nothing of that name; did you mean \S+/litevae\?"):
            load_model(tmp_path / "typo")
    monkeypatch.setattr(Path, "iterdir", denied(iterdir, "private"))
    with pytest.raises(FileNotFoundError, match=r"neither config.json nor config.yaml \(Permission denied\)"):
        load_model(tmp_path / "private")


def test_a_run_that_does_not_exist_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # without runs/
    monkeypatch.setattr(LiteVAE, "load_config", lambda name, **_: pytest.fail(f"the Hub was asked for {name}"))
    message = r"^runs/quickstart must be a run's folder, .* got nothing of that name"
    with pytest.raises(FileNotFoundError, match=message):
        load_model("runs/quickstart")


def test_what_cannot_be_loaded(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unet must hold a LiteVAE, HybridAutoencoder or AutoencoderKL, got a UNet2DModel; load"
    ):
        load_model(saved / "unet")
    for name in ("litevae", "diffusers"):
        shutil.copytree(saved / name, tmp_path / name)
        weights = tmp_path / name / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(ValueError, match=f"{weights} must be a whole safetensors file"):
            load_model(tmp_path / name)
        weights.unlink()
        with pytest.raises(FileNotFoundError, match=f"{name} must have its weights"):
            load_model(tmp_path / name)
    (tmp_path / "litevae" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json must be JSON"):
        load_model(tmp_path / "litevae")


def test_a_name_on_the_hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which class wrote it is read from its config.json; here the hub is a folder."""
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[str, dict[str, object]]] = []

    def load_config(name: str, **options: object) -> dict[str, object]:
        asked.append((name, options))
        return json.loads((saved / "baseline" / "config.json").read_text())

    def from_pretrained(name: str, **options: object) -> torch.nn.Module:
        asked.append((name, options))
        return torch.nn.Identity()

    monkeypatch.setattr(LiteVAE, "load_config", load_config)
    monkeypatch.setattr(StableDiffusionVAE, "from_pretrained", from_pretrained)
    assert not load_model("owner/name", variant="fp16", revision="v2", token="hf_x").training
    place = {"revision": "v2", "token": "hf_x"}
    assert asked == [("owner/name", place), ("owner/name", {"variant": "fp16", **place})]

    def unreachable(name: str, **_: object) -> None:
        raise OSError("We couldn't\nconnect")

    monkeypatch.setattr(LiteVAE, "load_config", unreachable)
    with pytest.raises(FileNotFoundError, match=r"^owner/name must be .* from the Hub: We couldn't connect; check the"):
        load_model("owner/name")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Autoencoders that `load_model` does not load, one in a pipeline's vae/."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("others")
    widths = (8, 8, 8, 8)
    tiny = diffusers.AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)
    tiny.save_pretrained(folder / "AutoencoderTiny")
    tiny.save_pretrained(folder / "pipeline" / "vae")
    parts: dict[str, Any] = {}
    for part in ("encoder", "decoder"):
        parts |= {f"{part}_block_out_channels": (8, 16), f"{part}_layers_per_block": (1, 1)}
        parts[f"{part}_block_types"] = "ResBlock"
    diffusers.AutoencoderDC(latent_channels=4, attention_head_dim=8, **parts).save_pretrained(folder / "AutoencoderDC")
    diffusers.VQModel(block_out_channels=(8,), norm_num_groups=2).save_pretrained(folder / "VQModel")
    return folder


@pytest.mark.parametrize("name", ["AutoencoderTiny", "AutoencoderDC", "VQModel"])
def test_any_autoencoder_of_diffusers_is_loaded(others: Path, name: str) -> None:
    kind = getattr(diffusers, name)
    model = load_autoencoder(others / name)
    assert type(model) is kind
    assert not model.training
    expected = kind.from_pretrained(others / name).state_dict()
    torch.testing.assert_close(dict(model.state_dict()), dict(expected), rtol=0, atol=0)
    with pytest.raises(
        ValueError, match=f"{name} must hold a LiteVAE, HybridAutoencoder or AutoencoderKL, got a {name}"
    ):
        load_model(others / name)


@pytest.mark.parametrize("name", ["litevae", "baseline", "diffusers"])
def test_what_load_model_loads_is_loaded_in_a_subfolder_too(saved: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(saved / name, tmp_path / "pipeline" / "vae")
    expected = load_model(saved / name)
    for model in (load_autoencoder(saved / name), load_autoencoder(tmp_path / "pipeline", "vae")):
        assert type(model) is type(expected)
        torch.testing.assert_close(dict(model.state_dict()), dict(expected.state_dict()), rtol=0, atol=0)
    with pytest.raises(FileNotFoundError, match=r"did you mean \S+/vae\?"):
        load_autoencoder(tmp_path / "pipeline")


def test_an_unfinished_run_is_loaded_as_an_autoencoder(tmp_path: Path) -> None:
    expected = unfinished_run(tmp_path / "run", averages=True)[1].state_dict()
    with pytest.warns(UserWarning, match=r"run is not finished"):
        model = load_autoencoder(tmp_path / "run")
    torch.testing.assert_close(dict(model.state_dict()), dict(expected), rtol=0, atol=0)


def test_a_pipelines_autoencoder_is_in_its_subfolder(others: Path) -> None:
    assert type(load_autoencoder(others / "pipeline", "vae")) is diffusers.AutoencoderTiny
    with pytest.raises(FileNotFoundError, match=r"pipeline/unet must be a run's folder, .* got nothing of that name"):
        load_autoencoder(others / "pipeline", "unet")


def test_what_is_no_autoencoder_is_named(saved: Path, others: Path, tmp_path: Path, monkeypatch: Any) -> None:
    message = (
        r"unet must hold an autoencoder that diffusers \S+ knows, got a UNet2DModel; a pipeline's is in --subfolder"
    )
    with pytest.raises(ValueError, match=message):
        load_autoencoder(saved / "unet")
    monkeypatch.chdir(tmp_path)  # a name without a slash is none of the Hub
    monkeypatch.setattr(LiteVAE, "load_config", lambda name, **_: pytest.fail(f"the Hub was asked for {name}"))
    for name in ("typo", "runs/typo", str(tmp_path / "typo")):
        for subfolder in (None, "vae"):
            with pytest.raises(FileNotFoundError, match=f"^{name} must be a run's folder, .* got nothing of that name"):
                load_autoencoder(name, subfolder)


def test_weights_of_other_autoencoders_are_checked(others: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "tiny"
    shutil.copytree(others / "AutoencoderTiny", folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    whole, tensors = file.read_bytes(), load_file(file)
    name = sorted(tensors)[0]
    rule = "tiny must hold the weights of its AutoencoderTiny, got"
    save_file({key: value for key, value in tensors.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{rule} others: {name} does not fit"):
        load_autoencoder(folder)
    save_file({**tensors, "surplus": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{rule} others: surplus does not fit"):
        load_autoencoder(folder)
    save_file({**tensors, name: torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{rule}: .*{name} expected shape"):
        load_autoencoder(folder)
    file.write_bytes(whole[:-1])
    with pytest.raises((ValueError, FileNotFoundError), match=f"{rule}: .*diffusion_pytorch_model"):
        load_autoencoder(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"{rule}: .* no file named diffusion_pytorch_model"):
        load_autoencoder(folder)


@pytest.mark.parametrize(("name", "kind"), [("litevae", LiteVAE), ("diffusers", StableDiffusionVAE)])
def test_a_subfolder_on_the_hub(saved: Path, tmp_path: Path, monkeypatch: Any, name: str, kind: type) -> None:
    """Which class wrote it is read from its config.json; here the hub is a folder."""
    monkeypatch.chdir(tmp_path)
    expected = kind.from_pretrained(saved / name)
    config = json.loads((saved / name / "config.json").read_text())
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(LiteVAE, "load_config", lambda hub, subfolder: asked.append((hub, subfolder)) or config)
    monkeypatch.setattr(kind, "from_pretrained", lambda hub, subfolder: asked.append((hub, subfolder)) or expected)
    assert load_autoencoder("owner/name", "vae") is expected
    assert asked == [("owner/name", "vae")] * 2
