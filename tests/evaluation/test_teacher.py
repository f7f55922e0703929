"""Are the distances to a teacher those of torch and scikit-image, and does an evaluation find and name the teacher?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from litevae import HybridAutoencoder, LiteVAE
from litevae.cost import parameter_count
from litevae.evaluation import teacher as room
from litevae.evaluation.autoencoders import EvaluatedAutoencoder
from litevae.evaluation.measurement import reconstruct
from litevae.evaluation.metrics import psnr
from litevae.evaluation.set_metric import Batch
from litevae.evaluation.teacher import Teacher, TeacherDistance, encoder_costs
from litevae.loading import load_autoencoder

from ..models.teachers import STUDENT, narrow
from . import small
from .test_report_card import evaluate, one_thread, own_place  # noqa: F401  # fixtures

QUICK = ("--metrics", "psnr,teacher-mse", "--sizes", "32")


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers") / "sd"
    narrow("sd15").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hybrid_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hybrids") / "hybrid"
    HybridAutoencoder.from_teacher(load_autoencoder(teacher_folder), "S", **STUDENT).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.save_crops(tmp_path_factory.mktemp("data") / "crops", 3)


@pytest.fixture
def pair(teacher_folder: Path, hybrid_folder: Path) -> tuple[EvaluatedAutoencoder, Teacher]:
    student = EvaluatedAutoencoder(load_autoencoder(hybrid_folder), "student")
    return student, Teacher(EvaluatedAutoencoder(load_autoencoder(teacher_folder), "sd"), "sd", "hash")


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 32, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1


def measured(metric: TeacherDistance, batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(room, "encoder_costs", lambda models, size: {})
    for batch in batches:
        metric.add(batch)
    return metric.values()


@pytest.mark.parametrize("sample_seed", [None, 3])
def test_values_are_those_of_torch_and_skimage(pair, sample_seed, monkeypatch):
    student, teacher = pair
    x, indices = images(3), (0, 1, 2)
    batch = reconstruct(student, indices, x, sample_seed)
    found = measured(TeacherDistance(student, teacher, 32, {"psnr": psnr}, sample_seed), [batch], monkeypatch)
    own, theirs = (model.encode(x) for model in (student, teacher.model))
    ours, target = own.mean.double().numpy(), theirs.mean.double().numpy()
    relative = ((ours - target) ** 2).mean((0, 2, 3)) / target.var((0, 2, 3))
    np.testing.assert_allclose(found["channel_relative_mse"], relative, rtol=1e-9)
    assert found["teacher-mse"] == pytest.approx(relative.mean(), rel=1e-9)
    flat = [torch.from_numpy(one).transpose(0, 1).flatten(1) for one in (ours, target)]
    cosine = torch.nn.functional.cosine_similarity(*flat, dim=1)
    np.testing.assert_allclose(found["channel_cosine"], cosine, rtol=1e-9)
    normals = [Normal(one.mean.double(), one.std.double()) for one in (theirs, own)]
    for name, (first, second) in {"kl_from_teacher": normals, "kl_to_teacher": normals[::-1]}.items():
        kl = kl_divergence(first, second)  # [B, C, h, w]
        assert found[name] == pytest.approx(kl.mean().item(), rel=1e-9)
        if name == "kl_from_teacher":
            np.testing.assert_allclose(found["channel_kl_from_teacher"], kl.mean((0, 2, 3)), rtol=1e-9)
    latents = theirs.mean if sample_seed is None else theirs.sample(sample_seed, indices)
    decoded = teacher.model.decode(latents)
    for name, (one, other) in {"to": (batch.reconstructions, decoded), "of": (decoded, x)}.items():
        expected = [
            peak_signal_noise_ratio(*pair, data_range=2) for pair in zip(other.numpy(), one.numpy(), strict=True)
        ]
        assert found[f"psnr_{name}_teacher"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert (found["images"], found["teacher"], found["teacher_weights"]) == (3, "sd", "hash")


def test_the_split_into_batches_and_processes_changes_no_sum(pair):
    student, teacher = pair
    x = images(4)
    # Encoded one by one, for a batch's convolutions may add in another order.
    batches = [reconstruct(student, (index,), x[index : index + 1], None) for index in range(4)]
    whole, first, second = (TeacherDistance(student, teacher, 32, {"psnr": psnr}) for _ in range(3))
    for index, batch in enumerate(batches):
        whole.add(batch)
        (first if index < 2 else second).add(batch)
    first.merge(second.sums, second.kept)
    for name, value in whole.sums.items():
        torch.testing.assert_close(first.sums[name], value, rtol=1e-12, atol=1e-12)


def test_the_teacher_has_no_error(pair, monkeypatch):
    _, teacher = pair
    batch = reconstruct(teacher.model, (0, 1), images(2), None)
    found = measured(TeacherDistance(teacher.model, teacher, 32, {"psnr": psnr}), [batch], monkeypatch)
    assert found["teacher-mse"] == found["kl_from_teacher"] == found["kl_to_teacher"] == 0
    assert found["channel_cosine"] == pytest.approx([1.0] * 4, rel=1e-12)
    assert found["psnr_to_teacher"] is None  # no image has an error
    json.dumps(found, allow_nan=False)


def test_constant_latents_have_no_scale(pair, monkeypatch):
    student, teacher = pair
    batch = reconstruct(student, (0,), images(1), None)
    with torch.no_grad():
        for parameter in teacher.model.model.quant_conv.parameters():
            parameter.zero_()
    with pytest.raises(ValueError, match="teacher's latents are constant"):
        measured(TeacherDistance(student, teacher, 32, {}), [batch], monkeypatch)


def test_costs_are_those_of_both_encoders(pair):
    student, teacher = pair
    costs = encoder_costs({"student": student, "teacher": teacher.model}, 64)
    models = {"student": student.model, "teacher": teacher.model.model}
    expected = {name: parameter_count(model.encoder, model.quant_conv) for name, model in models.items()}
    assert costs["encoder_parameters"] == expected
    assert all(speed > 0 for speed in costs["encoded_images_per_second"].values())
    batch = 64 * 3 * 64 * 64 * 4  # bytes
    for name, memory in costs["encoding_memory_mb"].items():
        assert memory * 2**20 > batch + 4 * expected[name]
    # The teacher's first features are at the image's resolution, 8 channels of them; the student's at half of it.
    assert costs["encoding_memory_mb"]["teacher"] > 2 * costs["encoding_memory_mb"]["student"]


def test_an_evaluation_finds_the_hybrids_teacher(hybrid_folder, teacher_folder, crops, tmp_path):
    assert evaluate(hybrid_folder, crops, *QUICK, "--output", "out") == 0
    results = small.results_in(tmp_path / "out")
    metrics, details = (results["sizes"]["32"][part] for part in ("metrics", "details"))
    assert list(metrics) == ["psnr", "teacher-mse"]
    assert metrics["teacher-mse"] > 0.1
    found = details["teacher-mse"]
    assert found["teacher"] == str(teacher_folder)
    assert list(found["encoded_images_per_second"]) == ["student", "teacher"]
    assert f"; teacher {teacher_folder}, weights {found['teacher_weights'][:23]}" in results["protocol"]["teacher-mse"]
    text = (tmp_path / "out" / "results.md").read_text()
    assert "## Beside the teacher" in text
    assert "dB] to the teacher's reconstructions" in text
    assert text.index("Parameters of the encoder, student") < text.index("Parameters of the encoder, teacher")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Error to teacher" in page
    assert "KL(teacher || student) [nats]" in page


@pytest.mark.slow
def test_any_model_of_these_latents_can_be_compared(teacher_folder, crops, tmp_path):
    model = small.save_model(tmp_path / "own")
    assert evaluate(model, crops, *QUICK, "--teacher", str(teacher_folder), "--output", "out", "--sample") == 0
    assert small.results_in(tmp_path / "out")["sizes"]["32"]["metrics"]["teacher-mse"] > 0
    shutil.copytree(teacher_folder, tmp_path / "pipeline" / "vae")
    words = ("--teacher", "pipeline", "--teacher-subfolder", "vae", "--output", "other", "--sample")
    assert evaluate(model, crops, *QUICK, *words) == 0
    found = [small.results_in(tmp_path / name)["sizes"]["32"]["metrics"] for name in ("out", "other")]
    assert found[0] == found[1]


def test_a_teacher_that_cannot_be_had_is_named(hybrid_folder, crops, tmp_path, teacher_folder):
    lost = tmp_path / "lost"
    shutil.copytree(hybrid_folder, lost)
    config = json.loads((lost / "config.json").read_text())
    (lost / "config.json").write_text(json.dumps(config | {"teacher": str(tmp_path / "gone")}))
    with pytest.raises(FileNotFoundError, match=r"^--teacher: .*gone must be a run's folder"):
        evaluate(lost, crops, *QUICK)
    with pytest.raises(FileNotFoundError, match=r"^--teacher: nowhere/at/all must be"):
        evaluate(lost, crops, "--teacher", "nowhere/at/all")
    with pytest.raises(ValueError, match=r"--teacher must be left out where teacher-mse is not measured, got 'x'; add"):
        evaluate(lost, crops, "--teacher", "x", "--metrics", "psnr")
    with pytest.raises(ValueError, match=r"--teacher must be left out where teacher-mse is not measured"):
        evaluate("bicubic", crops, "--teacher", "x")
    with pytest.raises(ValueError, match=r"--teacher must name the autoencoder whose latents the model makes"):
        evaluate(small.save_model(tmp_path / "own"), crops, *QUICK)
    narrow("sd3").save_pretrained(tmp_path / "sd3")
    rule = r"--teacher must have latents of 4 channels at 1/8, as hybrid has, got '16 at 1/8 of /"
    with pytest.raises(ValueError, match=rule):
        evaluate(hybrid_folder, crops, "--teacher", str(tmp_path / "sd3"))


@pytest.mark.slow
def test_what_was_not_asked_for_is_left_out_with_a_reason(hybrid_folder, crops, tmp_path):
    lost = tmp_path / "lost"
    shutil.copytree(hybrid_folder, lost)
    config = json.loads((lost / "config.json").read_text())
    for teacher, reason in (
        (str(tmp_path / "gone"), "--teacher: "),
        (None, "its config.json does not name the teacher"),
    ):
        (lost / "config.json").write_text(json.dumps(config | {"teacher": teacher}))
        output = f"out-{teacher is None}"
        assert evaluate(lost, crops, "--sizes", "32", "--output", output) == 0
        assert reason in small.results_in(tmp_path / output)["unavailable"]["teacher-mse"]
    model = tmp_path / "own"
    LiteVAE.from_preset("S", **STUDENT, block_out_channels=(8,) * 4).save_pretrained(model)
    assert evaluate(model, crops, "--sizes", "32", "--output", "ordinary") == 0
    assert "teacher-mse" not in small.results_in(tmp_path / "ordinary")["unavailable"]
