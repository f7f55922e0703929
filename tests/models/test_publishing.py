"""Does a model leave with a true card, lose none that was written by hand, and arrive on the Hub and back?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKL
from huggingface_hub import ModelCard

from litevae import LiteVAE, Measurement, ModelFacts, StableDiffusionVAE, load_model
from litevae.models.model_card import handed_on, is_generated
from litevae.models.model_facts import public_name
from litevae.state_hash import state_hash

from . import fake_hub

CARD = "README.md"
WEIGHTS = "diffusion_pytorch_model.safetensors"
FP16 = "diffusion_pytorch_model.fp16.safetensors"
FACTS = ModelFacts(
    license="cc-by-4.0",
    training={"Recipe": "imagenet128", "Steps": "1,000 of 16 crops"},
    measurements=(Measurement("val", 50_000, "256x256", "psnr", 27.123456789),),
    datasets=("ILSVRC/imagenet-1k",),
)


def baseline() -> StableDiffusionVAE:
    torch.manual_seed(0)
    return StableDiffusionVAE.from_architecture(block_out_channels=(8, 8, 16, 16), layers_per_block=1).eval()


@pytest.fixture(params=["LiteVAE", pytest.param("StableDiffusionVAE", marks=pytest.mark.slow)])
def model(request, make_model) -> Any:
    return make_model(scaling_factor=0.25, shift_factor=0.5) if request.param == "LiteVAE" else baseline()


def change_weights(model: Any) -> None:
    with torch.no_grad():
        next(model.parameters()).mul_(1 + 1e-6)


# the card


def test_the_card_says_what_the_model_is_and_the_hub_can_read_it(model, tmp_path):
    model.save_pretrained(tmp_path, about=FACTS)
    card = ModelCard.load(tmp_path / CARD)  # huggingface_hub's own reading of the YAML
    data = card.data
    assert (data.library_name, data.license, data.pipeline_tag) == ("diffusers", "cc-by-4.0", "image-to-image")
    assert ("litevae" in data.tags) == isinstance(model, LiteVAE)
    assert data.datasets == ["ILSVRC/imagenet-1k"]
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_config, result.metric_type) == ("val", "256x256", "psnr")
    assert result.metric_value == 27.1235
    assert data.litevae["weights"] == state_hash(model)
    encoder = sum(p.numel() for part in (model.encoder, model.quant_conv) if part for p in part.parameters())
    for text in (f"{encoder:,} parameters", "4 channels, 1/8 of", "imagenet128", "50,000", "27.12", "8, 8, 16, 16"):
        assert text in card.text
    if isinstance(model, LiteVAE):
        assert "0.25, after subtracting 0.5" in card.text
    assert str(tmp_path) not in str(card)


def test_what_nobody_told_is_said_to_be_unknown(model, tmp_path):
    model.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.license == "unknown"
    assert card.data.eval_results is None
    assert card.text.count("Not recorded") == 2
    assert "Not chosen yet" in card.text


@pytest.mark.parametrize(
    ("size", "title"),
    [("S", "LiteVAE-S"), pytest.param("M", "LiteVAE-M", marks=pytest.mark.slow), (None, "LiteVAE")],
)
def test_the_title_is_the_paper_s_size_where_the_encoder_has_it(make_model, tmp_path, size, title):
    narrow = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1}
    model = make_model() if size is None else LiteVAE.from_preset(size, **narrow)
    model.save_pretrained(tmp_path)
    assert f"\n# {title}\n" in (tmp_path / CARD).read_text()


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_the_example_runs_in_the_folder(model, tmp_path, monkeypatch, variant):
    model.save_pretrained(tmp_path, variant=variant)
    (example,) = re.findall(r"```python\n(.*?)```", (tmp_path / CARD).read_text(), re.DOTALL)
    assert len(example.splitlines()) == 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["image"].shape == (1, 3, 256, 256)


def test_a_card_goes_on_with_its_weights_and_no_others(model, tmp_path):
    model.save_pretrained(tmp_path / "a", about=FACTS)
    loaded = type(model).from_pretrained(tmp_path / "a").to(memory_format=torch.channels_last)
    loaded.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / CARD).read_text() == (tmp_path / "a" / CARD).read_text()
    loaded.save_pretrained(tmp_path / "b", about=ModelFacts(license="mit"))
    data = ModelCard.load(tmp_path / "b" / CARD).data
    assert (data.license, len(data.eval_results)) == ("mit", 1)
    change_weights(loaded)
    loaded.save_pretrained(tmp_path / "c")
    data = ModelCard.load(tmp_path / "c" / CARD).data
    assert (data.license, data.eval_results, data.litevae["training"]) == ("unknown", None, {})


def test_saving_again_keeps_what_was_told_of_the_weights(model, tmp_path):
    model.save_pretrained(tmp_path, about=FACTS)
    before = (tmp_path / CARD).read_text()
    model.save_pretrained(tmp_path)
    assert (tmp_path / CARD).read_text() == before


def test_results_of_one_data_set_that_were_measured_otherwise_stay_apart(make_model, tmp_path):
    """The Hub's YAML joins results of one data set and size, whose arguments are then those of the first."""
    measured = tuple(
        Measurement("val", images, "256x256", metric, value, source)
        for images, metric, value, source in (
            (500, "psnr", 27.0, "litevae.evaluate, adm"),
            (50, "psnr", 25.0, "litevae.evaluate, adm, a sample of the posterior, seed 0"),
            (5, "ssim", 0.5, "litevae.train"),
        )
    )
    make_model().save_pretrained(tmp_path / "a", about=ModelFacts(measurements=measured))
    LiteVAE.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / CARD).read_text() == (tmp_path / "a" / CARD).read_text()
    known = handed_on((tmp_path / "b" / CARD).read_text())
    assert known is not None
    assert known.facts.measurements == measured


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("      args:\n        images: 50000\n        measured_by: litevae.evaluate\n", ""),
        pytest.param("images: 50000", "images: many", marks=pytest.mark.slow),
        pytest.param("license: cc-by-4.0", "license: CC-BY-4.0", marks=pytest.mark.slow),
        ("license: cc-by-4.0", "license: [mit, apache-2.0]"),
        ("datasets:\n- ILSVRC/imagenet-1k", "datasets: ILSVRC/imagenet-1k"),
    ],
)
def test_yaml_changed_by_hand_goes_on_with_the_rest(make_model, tmp_path, before, after):
    make_model().save_pretrained(tmp_path / "a", about=FACTS)
    file = tmp_path / "a" / CARD
    changed = file.read_text().replace(before, after, 1)
    assert changed != file.read_text()
    file.write_text(changed)
    loaded = LiteVAE.from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / CARD).read_text() == changed
    loaded.save_pretrained(tmp_path / "c", about=ModelFacts(license="mit"))
    assert ModelCard.load(tmp_path / "c" / CARD).data.datasets == ["ILSVRC/imagenet-1k"]


def test_half_precision_that_was_trained_is_another_model(model, tmp_path):
    model.save_pretrained(tmp_path / "a", about=FACTS)
    half = type(model).from_pretrained(tmp_path / "a", torch_dtype=torch.bfloat16)
    with torch.no_grad():
        next(half.parameters()).mul_(1.5)
    for folder in ("b", "a"):  # the second over the weights that it began with
        half.save_pretrained(tmp_path / folder)
        data = ModelCard.load(tmp_path / folder / CARD).data
        assert (data.license, data.eval_results, data.litevae["training"]) == ("unknown", None, {})


def test_half_precision_is_the_same_model_rounded(model, tmp_path):
    model.save_pretrained(tmp_path / "a", about=FACTS)
    half = type(model).from_pretrained(tmp_path / "a", torch_dtype=torch.float16)
    half.save_pretrained(tmp_path / "b", variant="fp16")
    card = ModelCard.load(tmp_path / "b" / CARD)
    assert card.data.license == "cc-by-4.0"
    assert "| Weights | float16 |" in card.text
    assert card.data.litevae["variant"] == "fp16"


def test_config_json_does_not_say_where_the_model_was(model, tmp_path):
    model.save_pretrained(tmp_path / "a")
    loaded = type(model).from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    assert str(tmp_path) not in (tmp_path / "b" / "config.json").read_text()
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == json.loads(
        (tmp_path / "a" / "config.json").read_text()
    )
    shutil.rmtree(tmp_path / "a")  # a folder that is gone by then
    loaded.save_pretrained(tmp_path / "c")
    assert str(tmp_path) not in (tmp_path / "c" / "config.json").read_text()


@pytest.mark.parametrize("content", [b"# Mine\n", b"---\nlicense: mit\n---\n", b"", b"\xff\xfe", b"---\n: [\n---\n"])
def test_a_card_by_hand_stays(model, tmp_path, content):
    (tmp_path / CARD).write_bytes(content)
    for _ in range(2):
        model.save_pretrained(tmp_path, about=FACTS)
        assert (tmp_path / CARD).read_bytes() == content
    type(model).from_pretrained(tmp_path).save_pretrained(tmp_path / "other")
    assert is_generated((tmp_path / "other" / CARD).read_text())


def test_a_card_changed_by_hand_stays_and_goes_on(model, tmp_path):
    model.save_pretrained(tmp_path / "a", about=FACTS)
    file = tmp_path / "a" / CARD
    changed = file.read_text().replace("# LiteVAE", "# My autoencoder\n\nOf photographs.\n\n# LiteVAE", 1)
    changed = changed.replace("cc-by-4.0", "mit", 1)
    file.write_text(changed)
    model.save_pretrained(tmp_path / "a", about=ModelFacts(license="apache-2.0"))
    assert file.read_text() == changed
    loaded = type(model).from_pretrained(tmp_path / "a")
    loaded.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / CARD).read_text() == changed
    change_weights(loaded)
    loaded.save_pretrained(tmp_path / "c")
    assert "Not recorded" in (tmp_path / "c" / CARD).read_text()


def test_a_generated_card_is_written_anew(model, tmp_path):
    model.save_pretrained(tmp_path)
    before = (tmp_path / CARD).read_text()
    change_weights(model)
    model.save_pretrained(tmp_path)
    assert (tmp_path / CARD).read_text() != before
    assert ModelCard.load(tmp_path / CARD).data.litevae["weights"] == state_hash(model)


def test_a_variant_beside_the_weights_leaves_their_card(model, tmp_path):
    model.save_pretrained(tmp_path)
    before = (tmp_path / CARD).read_text()
    model.half().save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / CARD).read_text() == before
    model.save_pretrained(tmp_path / "alone", variant="fp16")
    model.float().save_pretrained(tmp_path / "alone")
    assert "variant" not in (tmp_path / "alone" / CARD).read_text()


def results(weights: str, data: str, psnr: float, latent: str = "the posterior's mode", dtype: str = "float32") -> str:
    """As litevae.evaluate writes them (tests/test_evaluate.py holds it to that)."""
    sizes = {"128": {"images": 4, "metrics": {"psnr": psnr, "ssim": 0.5}, "warnings": []}}
    about = {"data": {"name": data}, "sizes": sizes, "protocol": {"name": "adm", "latent": latent}}
    return json.dumps({"format": 1, "model": {"weights": weights, "dtype": dtype}, **about})


def test_evaluations_beside_the_model_are_in_its_card(model, tmp_path):
    run = tmp_path / "run"
    model.save_pretrained(run / "model", about=FACTS)
    weights = state_hash(model)
    for name, content in {
        "evaluation": results(weights, "/home/me/kodak", 31.5),
        "another": results("sha256:others", "others", 10.0),
        "damaged": "{",
        "foreign": json.dumps({"sizes": []}),
    }.items():
        (run / name).mkdir()
        (run / name / "results.json").write_text(content)
    type(model).from_pretrained(run / "model").save_pretrained(tmp_path / "copy")
    found = ModelCard.load(tmp_path / "copy" / CARD).data.eval_results
    assert [(one.dataset_name, one.dataset_config, one.metric_type, one.metric_value) for one in found] == [
        ("val", "256x256", "psnr", 27.1235),
        ("kodak", "128x128", "psnr", 31.5),
        ("kodak", "128x128", "ssim", 0.5),
    ]
    assert "/home" not in (tmp_path / "copy" / CARD).read_text()
    (tmp_path / "copy" / "results.json").write_text(results(weights, "kodak", 32.0))
    model.save_pretrained(tmp_path / "copy")
    measured = {one.metric_type: one.metric_value for one in ModelCard.load(tmp_path / "copy" / CARD).data.eval_results}
    assert measured == {"psnr": 32.0, "ssim": 0.5}
    (tmp_path / "copy" / "half").mkdir()
    sampled = results(weights, "kodak", 30.0, "a sample of the posterior, seed 0", "bfloat16")
    (tmp_path / "copy" / "half" / "results.json").write_text(sampled)
    model.save_pretrained(tmp_path / "copy")
    text = (tmp_path / "copy" / CARD).read_text()
    assert "| 32 | litevae.evaluate, adm |" in text
    assert "| 30 | litevae.evaluate, adm, a sample of the posterior, seed 0, bfloat16 |" in text


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("/data/imagenet/val/", "val"),
        ("~/photos", "photos"),
        ("../photos", "photos"),
        ("ILSVRC/imagenet-1k", "ILSVRC/imagenet-1k"),
        ("https://example.org/x/train-{000..127}.tar?token=1", "train-{000..127}.tar"),
        ("C:\\me\\photos", "photos"),
        ("/", "unnamed"),
        ("photographs", "photographs"),
    ],
)
def test_data_is_named_without_the_place_where_it_is(data, name):
    assert public_name(data) == name


def test_wrong_arguments_are_refused_before_anything_is_written(model, tmp_path):
    with pytest.raises(TypeError, match="about must be a ModelFacts or None, got 'mit'"):
        model.save_pretrained(tmp_path / "new", about="mit")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"save_directory must be a folder, got the file .*; pass"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(ValueError, match=r"license must be an identifier of the Hub's, such as 'apache-2\.0', got 'My"):
        ModelFacts(license="My own")
    with pytest.raises(TypeError, match="license must be an identifier of the Hub's or None, got 3"):
        ModelFacts(license=3)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"training": {"Seed": 3}}, r"training must map what was chosen to its value, both in words, got 3; take str"),
        ({"training": "photographs"}, "training must map what was chosen to its value, both in words, got 'photo"),
        ({"datasets": "imagenet-1k"}, "datasets must be a tuple of str, got 'imagenet-1k'"),  # else its letters
        ({"measurements": (31.5,)}, r"measurements must be a tuple of Measurement, got \(31\.5,\)"),
    ],
)
def test_facts_of_the_wrong_kind(facts, message):
    with pytest.raises(TypeError, match=message):
        ModelFacts(**facts)


def test_other_processes_write_no_card(model, tmp_path):
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / CARD).exists()


def test_the_baseline_s_card_and_weights_are_read_by_diffusers_too(tmp_path, image):
    model = baseline()
    model.save_pretrained(tmp_path)
    assert "AutoencoderKL reads it too" in ModelCard.load(tmp_path / CARD).text
    assert torch.equal(AutoencoderKL.from_pretrained(tmp_path)(image).sample, model(image).sample)


# the Hub


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[fake_hub.FakeHub]:
    """huggingface_hub as it is installed talks to it, with a cache of its own."""
    constants, api = huggingface_hub.constants, huggingface_hub.hf_api.api
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with fake_hub.serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(api, "endpoint", hub.url)
        monkeypatch.chdir(tmp_path)
        yield hub


def test_push_and_load(hub, model, image):
    address = model.push_to_hub("me/x", token="hf_mine", private=True, commit_message="First", about=FACTS)
    assert address == f"{hub.url}/me/x/commit/x"
    assert hub.private == {"me/x": True}
    assert "Bearer hf_mine" in hub.tokens
    (commit,) = hub.commits
    assert (commit["message"], sorted(commit["files"])) == ("First", sorted([CARD, "config.json", WEIGHTS]))
    card = commit["files"][CARD].decode()
    assert is_generated(card)
    assert hub.cards == [card]  # sent to be checked by the Hub before anything else
    assert 'from_pretrained("me/x")' in card
    for loaded in (type(model).from_pretrained("me/x"), load_model("me/x"), load_model("me/x", revision="main")):
        assert type(loaded) is type(model)
        assert torch.equal(loaded(image).sample, model(image).sample)
    loaded.save_pretrained("copy")
    assert ModelCard.load(Path("copy", CARD)).data.license == "cc-by-4.0"


def test_pushing_again_keeps_what_was_told_of_the_weights(hub, make_model):
    model = make_model()
    model.push_to_hub("me/x", about=FACTS)
    card = hub.repositories["me/x"][CARD]
    model.push_to_hub("me/x")
    assert hub.repositories["me/x"][CARD] == card
    model.save_pretrained("folder", push_to_hub=True, repo_id="me/x")
    assert hub.repositories["me/x"][CARD] == card


def test_a_variant_of_the_hub(hub, model, image):
    model.push_to_hub("me/x", about=FACTS)
    card = hub.repositories["me/x"][CARD]
    model.half()
    model.push_to_hub("me/x", variant="fp16")
    assert set(hub.repositories["me/x"]) == {CARD, "config.json", WEIGHTS, FP16}
    assert hub.repositories["me/x"][CARD] == card  # of the whole weights
    hub.downloads.clear()
    kinds = (type(model).from_pretrained("me/x", variant="fp16", torch_dtype=torch.float16),)
    for loaded in (*kinds, load_model("me/x", variant="fp16").half()):
        assert torch.equal(loaded(image.half()).sample, model(image.half()).sample)
    assert any(file.endswith(FP16) for file in hub.downloads)
    assert not any(file.endswith(WEIGHTS) for file in hub.downloads)
    kinds[0].save_pretrained("copy")  # of a card of the whole weights, which are not on this machine
    assert ModelCard.load(Path("copy", CARD)).data.license == "cc-by-4.0"
    with pytest.raises(FileNotFoundError, match=r"^me/x must be .* from the Hub: .*bf16"):
        load_model("me/x", variant="bf16")
    model.push_to_hub("me/only", variant="fp16")
    assert 'from_pretrained("me/only", variant="fp16")' in hub.repositories["me/only"][CARD].decode()


def test_what_the_hub_has_is_checked_as_strictly_as_a_folder(hub, make_model):
    from safetensors.torch import load, save

    make_model().push_to_hub("me/x")
    files = hub.repositories["me/x"]
    whole = load(files[WEIGHTS])
    for tensors, message in (
        ({name: x for name, x in whole.items() if name != "decoder.conv_in.weight"}, r"conv_in\.weight is missing"),
        ({**whole, "surplus": torch.zeros(1)}, "surplus has no place in the model"),
    ):
        files[WEIGHTS] = save(tensors)
        with pytest.raises(ValueError, match=message):
            LiteVAE.from_pretrained("me/x")
        with pytest.raises(ValueError, match=message):
            load_model("me/x")


def test_a_card_by_hand_on_the_hub_stays(hub, model):
    model.push_to_hub("me/x")
    change_weights(model)
    model.push_to_hub("me/x")
    card = hub.repositories["me/x"][CARD].decode()
    assert state_hash(model) in card
    hub.repositories["me/x"][CARD] = b"# Mine"
    with pytest.warns(UserWarning, match=r"me/x has a README\.md that was written by hand: it stays as it is"):
        model.push_to_hub("me/x", about=FACTS)
    assert hub.repositories["me/x"][CARD] == b"# Mine"
    model.push_to_hub("me/x", subfolder="vae", about=FACTS)
    assert set(hub.repositories["me/x"]) >= {"vae/README.md", "vae/config.json", f"vae/{WEIGHTS}"}
    assert 'from_pretrained("me/x", subfolder="vae")' in hub.repositories["me/x"]["vae/README.md"].decode()
    loaded = type(model).from_pretrained("me/x", subfolder="vae")
    loaded.save_pretrained("copy")
    assert ModelCard.load(Path("copy", CARD)).data.license == "cc-by-4.0"


def test_save_pretrained_pushes_the_folder(hub, model, tmp_path):
    """By a Path, whose name is the repository's; diffusers writes another README.md over the folder's."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / CARD).write_text("---\nlicense: mit\n---\n# Mine\n")
    model.save_pretrained(folder, push_to_hub=True, token="hf_mine", commit_message="Two", create_pr=False)
    assert (folder / CARD).read_text() == "---\nlicense: mit\n---\n# Mine\n"
    assert hub.repositories["me/mine"][CARD] == (folder / CARD).read_bytes()
    assert hub.commits[-1]["message"] == "Two"
    model.save_pretrained(tmp_path / "other", push_to_hub=True, repo_id="org/other", create_pr=True)
    assert hub.commits[-1]["is_pull_request"]
    assert hub.commits[-1]["message"] == f"Upload {type(model).__name__}"
    assert hub.repositories["org/other"] == {}


def test_a_model_that_is_not_there_on_the_hub(hub, make_model):
    with pytest.raises(FileNotFoundError, match=r"me/none must be .*, and from the Hub: me/none is not a local folder"):
        load_model("me/none")
    make_model().save_pretrained("here")
    with pytest.raises(ValueError, match="revision must be left out for here, which is no name on the Hub, got 'v1'"):
        load_model("here", revision="v1")


def test_without_a_card_on_the_hub(hub, make_model):
    make_model().push_to_hub("me/x")
    del hub.repositories["me/x"][CARD]
    LiteVAE.from_pretrained("me/x").save_pretrained("copy")
    assert "Not recorded" in Path("copy", CARD).read_text()


@pytest.mark.slow
def test_a_process_with_another_endpoint(tmp_path, make_model):
    """HF_ENDPOINT, as users of a mirror set it: nothing of this process is patched."""
    make_model().save_pretrained(tmp_path / "model", about=FACTS)
    script = "import litevae; m = litevae.load_model('model'); m.push_to_hub('me/x'); litevae.load_model('me/x')"
    with fake_hub.serve() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "no_proxy": "127.0.0.1"}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert b"license: cc-by-4.0" in hub.repositories["me/x"][CARD]
