"""Does a distillation train, stop, resume, survive kills, and leave a drop-in autoencoder?"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL
from huggingface_hub.errors import GatedRepoError

from litevae import LiteVAE, train
from litevae.distillation.config import STUDENT_KEYS
from litevae.distillation.evaluation import compare
from litevae.distillation.report import DistillationFolder
from litevae.distillation.start import fit_last_layer
from litevae.distillation.trainer import DistillationTrainer
from litevae.models.hybrid import ENCODER_FIELDS, HybridAutoencoder
from litevae.pixels import to_float
from litevae.runs.processes import Processes
from litevae.runs.recipes import load_config, to_yaml

from .. import children
from ..evaluation import small
from ..models.teachers import narrow

SHORT = [
    "model.size=S", "model.extraction_channels=4", "model.extraction_multipliers=[1]", "model.aggregation_channels=4",
    "model.aggregation_multipliers=[1]", "data.source=folder", "data.crop_size=32", "data.evaluation_size=32",
    "data.workers=0", "train.steps=4", "train.batch_size=4", "train.log_every=2", "train.evaluate_every=2",
    "train.checkpoint_every=2", "train.learning_rate=1e-3", "train.warmup_steps=0", "train.device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """teacher: SD 1.5's layout, narrow; others that cannot be one; images."""
    folder = tmp_path_factory.mktemp("distillation")
    teacher = narrow("sd15")
    teacher.save_pretrained(folder / "teacher")
    narrow("sd3").save_pretrained(folder / "sixteen")
    teacher.save_pretrained(folder / "pipeline" / "vae")
    (folder / "pipeline" / "model_index.json").write_text("{}")
    f4 = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    AutoencoderKL(**f4, **blocks).save_pretrained(folder / "f4")  # type: ignore[arg-type]
    AsymmetricAutoencoderKL(norm_num_groups=4).save_pretrained(folder / "other")
    small.save_model(folder / "litevae")
    small.save_crops(folder / "images", 12)
    return folder


def words(place: Path, *more: str) -> list[str]:
    return ["distill-quickstart", *SHORT, f"teacher={place / 'teacher'}", f"data.path={place / 'images'}", *more]


def run_of(place: Path, *more: str) -> DistillationTrainer:
    config = load_config(DistillationTrainer.schema, "distill-quickstart", words(place, *more)[1:])
    return DistillationTrainer(config, DistillationFolder(Path("x")), Processes("cpu"))


def checkpoint(run: str, step: int) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(Path(run, "checkpoints", f"step-{step:06d}.pt"), weights_only=True)
    return loaded


def lines(run: str, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == kind]


AVERAGED = ["train.ema_decay=0.5", "train.decoder_start=2", "teacher.dtype=bf16"]


@pytest.mark.parametrize("more", [[], pytest.param(AVERAGED, marks=pytest.mark.slow)])
def test_a_run_leaves_a_hybrid_with_the_teachers_decoder(place: Path, more: list[str]) -> None:
    assert train.main(words(place, *more, "run.dir=run")) == 0
    assert [line["step"] for line in lines("run", "evaluation")] == [0, 2, 4]
    last = lines("run", "evaluation")[-1]
    assert len(last["latent_errors"]) == len(last["cosines"]) == 4
    assert {path.name for path in Path("run").iterdir()} >= {"loss_and_psnr.png", "reconstructions.png", "grids"}

    card = Path("run/model/README.md").read_text()
    assert "distillation" in card
    assert ("learned from step 2 on" if more else "| Decoder | the teacher's |") in card
    assert str(place) not in card

    model = HybridAutoencoder.from_pretrained("run/model").eval()
    teacher = AutoencoderKL.from_pretrained(place / "teacher").eval()
    assert model.config.scaling_factor == teacher.config.scaling_factor
    states = {name: value for name, value in teacher.state_dict().items() if "decoder" in name or "post_quant" in name}
    same = [torch.equal(model.state_dict()[name], value) for name, value in states.items()]
    assert all(same) if not more else not any(same)  # Adam changes every parameter that has a gradient
    latents = torch.randn(1, 4, 4, 4)
    if not more:
        assert torch.equal(model.decode(latents).sample, teacher.decode(latents).sample)

    # the numbers of the log, from the saved model and diffusers' teacher
    run = run_of(place)
    found = compare(model, run.teacher, run.data.held_out, torch.device("cpu"))
    assert found.means["psnr"] == pytest.approx(last["psnr"], abs=1e-3)
    for item in list(run.data.held_out)[:1]:
        image = item.image[None]
        with torch.no_grad():
            decoded = teacher.decode(teacher.encode(image).latent_dist.mean).sample.clamp(-1, 1)
        error = (decoded.double() - image.double()).square().mean()
        assert last["images"][item.name]["teacher_psnr"] == pytest.approx(float(10 * (4 / error).log10()), abs=1e-3)


TUNED = ["train.decoder_start=3", "train.ema_decay=0.5", "loss.kl_weight=0.1"]


@pytest.mark.parametrize("more", [pytest.param([], marks=pytest.mark.slow), TUNED])
def test_a_resumed_run_equals_an_unbroken_one(place: Path, more: list[str]) -> None:
    same = ["train.schedule=constant", *more]
    assert train.main(words(place, *same, "run.dir=whole", "train.steps=6")) == 0
    assert train.main(words(place, *same, "run.dir=broken", "train.steps=2")) == 0
    assert train.main(["--resume", "broken", "train.steps=6"]) == 0
    one, two = checkpoint("whole", 6), checkpoint("broken", 6)
    for key in ("model", "ema", "optimizers"):
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_equal_one(place: Path) -> None:
    more = ["train.decoder_start=2", "train.keep_checkpoints=9"]
    for count, name in ((1, "one"), (2, "two")):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = children.run(
            [sys.executable, *launcher, "-m", "litevae.train", *words(place, *more, f"run.dir={name}")], timeout=300
        )
        assert done.returncode == 0, done.stderr
    start, one, two = (
        torch.cat([value.flatten() for part in checkpoint(run, step)["model"] for value in part.values()])
        for run, step in (("one", 0), ("one", 4), ("two", 4))
    )
    assert 0 < (one - start).norm()
    assert (two - one).norm() < 0.1 * (one - start).norm()
    losses = [[line["loss"]["total"] for line in lines(run, "train")] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_a_run_killed_many_times_equals_an_unbroken_one(place: Path, tmp_path: Path) -> None:
    config = load_config(DistillationTrainer.schema, "distill-quickstart", words(place, "train.schedule=constant")[1:])
    config.train.steps, config.train.evaluate_every, config.train.checkpoint_every = 5000, 1000, 3
    (tmp_path / "long.yaml").write_text(to_yaml(config))
    program = Path(__file__).parents[1] / "training" / "kill_repeatedly.py"
    command = [sys.executable, str(program), str(tmp_path / "long.yaml"), "killed", "6", "0"]
    output = children.run(command, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert output.returncode == 0, output.stderr
    killed = json.loads(output.stdout.splitlines()[-1])
    assert killed["steps"] == sorted(killed["steps"])
    end = f"train.steps={killed['steps'][-1] + 2}"
    assert train.main(["--resume", "killed", end]) == 0
    assert train.main([str(tmp_path / "long.yaml"), "run.dir=unbroken", end]) == 0
    one, two = (checkpoint(run, killed["steps"][-1] + 2) for run in ("killed", "unbroken"))
    for key in ("model", "optimizers"):
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)


def test_the_start_is_a_least_squares_solution(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.linalg.lstsq on the features of the same crops finds the same outputs, without the ridge."""
    monkeypatch.setattr("litevae.distillation.start.RIDGE", 1e-12)
    run = run_of(place, "train.initialization=residual")
    crops = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder, image = run.networks.encoder, to_float(crops)
    features: list[torch.Tensor] = []
    hook = encoder.aggregation.conv_out.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        encoder(image)
        hook.remove()
        rows = torch.nn.functional.unfold(features[0], 3, padding=1).transpose(1, 2).flatten(0, 1).double()
        rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
        wanted = run.teacher.moments(image).permute(0, 2, 3, 1).flatten(0, 2).double()
        expected = rows @ torch.linalg.lstsq(rows, wanted, driver="gelsd").solution
        fit_last_layer(encoder, run.teacher, [crops], torch.device("cpu"))
        found = encoder(image).permute(0, 2, 3, 1).flatten(0, 2).double()
    assert (found - expected).norm() < 1e-3 * (expected - expected.mean(0)).norm()


def test_the_teacher_runs_once_a_batch_and_the_decoder_only_where_a_loss_needs_it(place: Path) -> None:
    for more, decoded in (([], 1), (["loss.reconstruction_weight=0"], 0)):
        run, calls = run_of(place, *more), dict.fromkeys(("teacher", "decoder"), 0)

        def count(name: str, calls: dict[str, int] = calls) -> Any:
            return lambda *_: calls.__setitem__(name, calls[name] + 1)

        run.teacher.model.encoder.register_forward_hook(count("teacher"))
        run.networks.model.decoder.register_forward_hook(count("decoder"))
        before = [parameter.clone() for parameter in run.teacher.model.parameters()]
        run.update(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), 0)
        assert calls == {"teacher": 1, "decoder": decoded}
        assert all(parameter.grad is None for parameter in run.teacher.model.parameters())
        assert all(torch.equal(one, two) for one, two in zip(before, run.teacher.model.parameters(), strict=True))


def test_gradient_checkpointing_changes_no_gradient(place: Path) -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    gradients = []
    for more in ([], ["train.gradient_checkpointing=true"]):
        run = run_of(place, *more)
        run.update.backward(pixels)
        gradients.append([parameter.grad for parameter in run.networks.encoder.parameters()])
        assert run.networks.model.is_gradient_checkpointing == bool(more)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_student_starts_from_the_encoder_of_another_run(place: Path) -> None:
    assert train.main(words(place, "run.dir=first")) == 0
    run = run_of(place, "train.start_from=first")
    run.start_from(Path("first"))
    saved = HybridAutoencoder.from_pretrained("first/model").encoder.state_dict()
    for name, value in run.networks.encoder.state_dict().items():
        assert torch.equal(saved[name], value), name


def test_a_dry_run_counts_both_encoders(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*words(place), "--dry-run"]) == 0
    text = capsys.readouterr().out
    teacher = AutoencoderKL.from_pretrained(place / "teacher")
    count = sum(p.numel() for part in (teacher.encoder, teacher.quant_conv) for p in part.parameters())
    assert re.search(rf"teacher's encoder +{count:,} ", text)
    for part in ("memory of a step with 4 crops", "hours of one A100", "nothing was trained"):
        assert part in text
    assert not Path("runs").exists()


def test_the_students_keys_are_those_of_a_hybrid() -> None:
    assert {*STUDENT_KEYS} == {"latent_channels", *ENCODER_FIELDS} - {"use_quant_conv"}


BAD = [
    (["teacher={p}/f4"], r"teacher.path=.*/f4: teacher must divide the image's sides by 8"),
    (["teacher={p}/other"], r"teacher must be a diffusers AutoencoderKL or AutoencoderKLFlux2, got"),
    (["teacher={p}/litevae"], r"teacher must be a diffusers AutoencoderKL or AutoencoderKLFlux2, got"),
    (["teacher={p}/sixteen", "model.latent_channels=4"], "model.latent_channels must be 16, the latent channels of"),
    (["teacher={p}/nowhere"], r"teacher.path: .*/nowhere must be a run's folder"),
    (["model.wavelet_levels=[1,2]"], r"model.wavelet_levels must end in 3"),
    (["data.crop_size=36"], "data.crop_size must be a multiple of 8, got 36; try 32"),
    (["loss.mean_weight=0", "loss.reconstruction_weight=0"], "loss.mean_weight must be above 0"),
    (["train.decoder_start=1", "loss.reconstruction_weight=0"], "train.decoder_start must be null"),
    (["train.decoder_learning_rate=1e-5"], "train.decoder_learning_rate must be null unless"),
    (["train.decoder_start=1", "train.mixed_precision=fp16"], "train.mixed_precision must be bf16 or float32"),
    (["teacher.dtype=fp16"], "teacher.dtype must be"),
]


@pytest.mark.parametrize(("more", "message"), BAD)
def test_a_wrong_request_names_the_way_out_before_any_work(
    place: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(words(place, *(word.format(p=place) for word in more))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not Path("runs").exists()


def test_a_run_needs_a_teacher(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["distill-quickstart"]) == 2
    assert "teacher.path must name the autoencoder" in capsys.readouterr().err


def test_a_gated_teacher_says_how_to_get_in(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gated(*_: Any, **__: Any) -> None:
        response = requests.Response()
        response.status_code = 401
        try:
            raise GatedRepoError("Cannot access gated repo", response=response)  # type: ignore[arg-type]
        except GatedRepoError:
            raise OSError("owner/gated is not a valid model identifier")  # noqa: B904  (as diffusers does)

    monkeypatch.setattr(LiteVAE, "load_config", gated)
    assert train.main(words(place, "teacher=owner/gated", "teacher.subfolder=vae")) == 2
    error = capsys.readouterr().err
    assert "owner/gated is gated: accept its terms on https://huggingface.co/owner/gated" in error
    assert "log in with `hf auth login` or set HF_TOKEN" in error


def test_of_a_pipelines_folder_its_vae_is_the_teacher(place: Path) -> None:
    run = run_of(place, f"teacher={place / 'pipeline'}")
    assert run.teacher.subfolder == "vae"
    assert run.identity == run_of(place).identity


def test_another_teacher_is_refused_when_a_run_goes_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words(place, "run.dir=run", "train.steps=2")) == 0
    narrow("sd15", scaling_factor=1.0, layers_per_block=2).save_pretrained("another")
    assert train.main(["--resume", "run", "teacher=another", "train.steps=4"]) == 2
    assert "teacher.path must be the teacher that run/checkpoints was trained with" in capsys.readouterr().err
