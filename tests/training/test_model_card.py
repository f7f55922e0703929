"""Does the card of a run's model say how it was trained, name no place of this machine, and outlive the run?"""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from litevae import ModelFacts, load_model, train
from litevae.models.model_card import is_generated
from litevae.runs.run_folder import RunFolder
from litevae.state_hash import state_hash
from litevae.training.model_card import _recipe

Run = Callable[..., tuple[int, Path]]


def test_the_card_of_a_run(run: Run, photos: Path) -> None:
    code, folder = run("run")
    assert code == 0
    text = (folder / "model" / "README.md").read_text()
    card = ModelCard(text)
    measured = RunFolder(folder).evaluations()[-1]
    found = {
        one.metric_type: (one.metric_value, one.dataset_name, one.dataset_config) for one in card.data.eval_results
    }
    about = (f"{photos.name}, held out", "32x32")
    assert found == {name: (pytest.approx(measured[name], rel=1e-5), *about) for name in ("psnr", "ssim")}
    told = card.data.litevae["training"]
    assert told["Recipe"] == "tiny"
    assert told["Steps"] == "6 of 2 crops"
    assert told["Data"].startswith(f"{photos.name}: 4 images")
    assert told["Program"].startswith("`litevae.train`, litevae 0.1.0")
    assert card.data.litevae["weights"] == state_hash(load_model(folder))
    for private in (str(photos.parent), str(folder.parent), str(Path.home())):
        assert private not in text


@pytest.mark.slow
def test_a_resumed_run_keeps_a_card_by_hand_and_renews_its_own(run: Run) -> None:
    _, folder = run("run")
    file = folder / "model" / "README.md"
    assert train.main(["--resume", str(folder), "train.steps=8"]) == 0
    renewed = file.read_text()
    assert is_generated(renewed)
    assert "8 of 2 crops" in renewed
    own = renewed.replace("# LiteVAE", "# Mine", 1)
    file.write_text(own)
    assert train.main(["--resume", str(folder), "train.steps=10"]) == 0
    assert file.read_text() == own


def test_a_run_s_model_is_published_with_its_card(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of huggingface_hub are replaced here; tests/models/test_publishing.py has a whole Hub."""
    _, folder = run("run")
    uploaded: dict[str, str] = {}

    def upload(folder_path: Path, **_: object) -> object:
        uploaded.update({file.name: file.read_text(errors="replace") for file in folder_path.iterdir()})
        return type("Commit", (), {"commit_url": "url"})

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda name, **_: type("Repo", (), {"repo_id": name}))
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    monkeypatch.setattr("litevae.models.publishing._card_on_hub", lambda *_: "")
    assert load_model(folder).push_to_hub("me/x", about=ModelFacts(license="mit")) == "url"
    assert set(uploaded) == {"README.md", "config.json", "diffusion_pytorch_model.safetensors"}
    card = ModelCard(uploaded["README.md"])
    assert (card.data.license, card.data.litevae["training"]["Recipe"]) == ("mit", "tiny")
    assert 'from_pretrained("me/x")' in card.text


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        (["/x/litevae/train.py", "quickstart", "run.dir=/y"], "quickstart"),
        (["litevae.train", "--dry-run", "data.path=/z", "/home/me/my-litevae.yaml"], "my-litevae"),
        ([], ""),
    ],
)
def test_the_recipe_is_named_without_its_folder(command: list[str], recipe: str) -> None:
    assert _recipe(command) == recipe
