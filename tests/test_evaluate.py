"""Does the command do what it says: exit codes, errors before work, signals, several processes, constant memory?"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from litevae import StableDiffusionVAE, evaluate, load_model
from litevae.evaluation.weights import INCEPTION_FILE

from . import children
from .evaluation import small
from .own_place import one_thread, own_place  # noqa: F401  (fixtures)

COMMAND = [sys.executable, "-m", "litevae.evaluate"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny, gray, unet: models; crops, broken, none: images; wrong: weights; finished and adm: evaluations."""
    import diffusers

    folder = tmp_path_factory.mktemp("place")
    small.save_model(folder / "tiny")
    gray = diffusers.AutoencoderKL(in_channels=1, norm_num_groups=2, block_out_channels=(4,))
    StableDiffusionVAE(gray).save_pretrained(folder / "gray")
    blocks: dict[str, Any] = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = diffusers.UNet2DModel(block_out_channels=(8,), norm_num_groups=2, add_attention=False, **blocks)
    unet.save_pretrained(folder / "unet")
    small.save_crops(folder / "crops", 3)
    (folder / "none").mkdir()
    (folder / "broken").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "broken" / name).write_bytes(b"not an image")
    (folder / "wrong").mkdir()
    torch.save({"other": torch.zeros(3)}, folder / "wrong" / INCEPTION_FILE.name)
    for name, words in (("finished", ()), ("adm", ("--protocol", "adm"))):
        common = ("--sizes", "32", "--metrics", "psnr", "--workers", "0", "--output", str(folder / name))
        assert evaluate.main(["bicubic", str(folder / "crops"), *common, *words]) == 0
    return folder


WRONG = [
    ("nothing {p}/crops", "nothing must be a run's folder, a folder written by save_pretrained, or owner/name"),
    ("{p}/unet {p}/crops", "unet must hold an autoencoder that diffusers .* knows, got a UNet2DModel; a pipeline's is"),
    ("{p}/gray {p}/crops", r"MODEL must take RGB images \(in_channels=3\), got 'gray with in_channels=1'"),
    ("{p}/tiny {p}/crops --subfolder vae", "tiny/vae must be a run's folder, .* got nothing of that name"),
    ("{p}/tiny nowhere", "DATA must name a folder of images, got nowhere, which does not exist"),
    ("{p}/tiny {p}/none", "none .*it is empty"),
    ("{p}/tiny {p}/broken", "DATA must hold images that can be used, got '.*/broken'"),
    ("{p}/tiny {p}/crops --sizes 32,100", "--sizes must be a multiple of 8 for tiny, got 100; try 96"),
    ("{p}/tiny {p}/crops --metrics rfid", "rfid needs weights-inception-.*--download fetch it"),
    ("{p}/tiny {p}/crops --weights {p}/wrong", "holds other weights than those of the Inception of 2015-12-05"),
    ("{p}/tiny {p}/crops --weights nowhere", "--weights must be a folder that exists, got 'nowhere'"),
    ("{p}/tiny {p}/crops --training-data {p}/none", "--training-data: .*it is empty"),
    ("bicubic {p}/crops --metrics psnr,mmd", "--metrics must leave out mmd for bicubic, which has no latents"),
    ("{p}/tiny {p}/crops --output {p}/finished", "--output must name an empty folder, .* holds a finished evaluation"),
    ("{p}/tiny {p}/crops --output {p}/tiny/config.json", "--output must be a folder, got"),
    ("--compare {p}/finished {p}/adm", "protocol.name must be the same .* got 'ldm' of bicubic and 'adm' of bicubic"),
    ("--compare {p}/finished {p}/none", "No such file or directory: '.*none/results.json'"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
@pytest.mark.filterwarnings("ignore:skipped .unreadable")
def test_a_wrong_request_is_named_and_leaves_everything_as_it_was(
    place: Path, tmp_path: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for folder in (place, tmp_path) for path in folder.rglob("*") if path.is_file()}

    before = files()
    options = [] if words.startswith("--compare") else ["--workers", "0", "--sizes", "32"]
    assert evaluate.main([*options, *words.format(p=place).split()]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert files() == before
    assert not list(tmp_path.glob("evaluations/*"))


def test_a_cuda_gpu_that_is_not_there(place: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert evaluate.main(["bicubic", str(place / "crops"), "--device", "cuda"]) == 2
    assert "--device must be cpu or auto where torch finds no CUDA GPU" in capsys.readouterr().err


def test_what_the_terminal_shows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(place / "tiny"), str(place / "crops"), "--sizes", "32,64", "--workers", "0"]) == 0
    output, errors = capsys.readouterr()
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["model", "data", "metrics", "without", "folder"]
    assert lines[3].startswith("without   lpips-vgg, lpips-alex, rfid, kid, fid-dinov2: their weights are missing")
    metrics = json.loads(Path("evaluations/tiny-crops/results.json").read_text())["sizes"]
    table = {line.split("  ")[0].split(" ")[0]: line.split()[-2:] for line in lines if line.startswith(("PSNR", "FWD"))}
    assert table["PSNR"] == [f"{metrics[size]['metrics']['psnr']:.2f}" for size in ("32", "64")]
    assert lines[-1] == "written   evaluations/tiny-crops: report.html, results.json, results.md, scores.csv"
    assert len(lines) < 20
    assert max(map(len, lines)) < 200
    assert "32x32 images 100% |" in errors
    assert "64x64 images 100% |" in errors


def test_what_was_measured_is_in_the_card_of_the_model(place: Path, tmp_path: Path) -> None:
    """That is saved beside the results."""
    words = f"{place}/tiny {place}/crops --sizes 32 --metrics psnr --workers 0 --sample --output {tmp_path}/copy/own"
    assert evaluate.main(words.split()) == 0
    load_model(place / "tiny").save_pretrained(tmp_path / "copy")
    value = json.loads((tmp_path / "copy" / "own" / "results.json").read_text())["sizes"]["32"]["metrics"]["psnr"]
    (row,) = [line for line in (tmp_path / "copy" / "README.md").read_text().splitlines() if "PSNR" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    source = "litevae.evaluate, ldm, a sample of the posterior, seed 0"
    assert [cells[0], *cells[2:]] == ["crops", "32x32", "PSNR (dB)", f"{value:.4g}", source]


# A child that sends itself a signal when it encodes a batch; its state is saved after every batch.
AT_BATCH = """
import os, signal, sys
from litevae import evaluate
from litevae.evaluation import autoencoders, measurement
measurement.SAVE_SECONDS = -1
number, batch, encode, calls = int(sys.argv[1]), int(sys.argv[2]), autoencoders.EvaluatedAutoencoder.encode, []
def counted(self, images):
    calls.append(1)
    if len(calls) == batch + 1:  # the first was to try it
        os.kill(os.getpid(), number)
    return encode(self, images)
autoencoders.EvaluatedAutoencoder.encode = counted
sys.exit(evaluate.main(sys.argv[3:]))
"""


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_counts_nothing_twice(place: Path, tmp_path: Path) -> None:
    crops = small.save_crops(tmp_path / "crops", 7)
    words = [str(place / "tiny"), str(crops), "--sizes", "32,48", "--batch-size", "2", "--metrics", small.ALL_OWN]
    assert evaluate.main([*words, "--output", "unbroken"]) == 0
    partial = tmp_path / "killed" / "partial"
    for number, batch, code, left in (
        (signal.SIGKILL, 3, -signal.SIGKILL, ["32-process-0.pt"]),
        (signal.SIGTERM, 1, 143, ["32-process-0.pt"]),
        (signal.SIGKILL, 3, -signal.SIGKILL, ["32.json", "48-process-0.pt"]),
    ):
        program = [sys.executable, "-c", AT_BATCH, str(int(number)), str(batch)]
        done = children.run([*program, *words, "--output", "killed"], timeout=120)
        assert done.returncode == code, done.stderr
        assert sorted(path.name for path in partial.iterdir()) == [*left, "request.json"]
    assert evaluate.main([*words, "--output", "killed"]) == 0
    assert small.numbers_in(tmp_path / "killed") == small.numbers_in(tmp_path / "unbroken")
    assert not partial.exists()


@pytest.mark.slow
def test_ctrl_c_stops_the_command_and_its_workers(place: Path, tmp_path: Path) -> None:
    crops = small.save_crops(tmp_path / "crops", 200)
    words = [str(place / "tiny"), str(crops), "--sizes", "64", "--batch-size", "1", "--metrics", "psnr,fwd"]
    errors = tmp_path / "errors"
    with errors.open("w") as file, children.started([*COMMAND, *words, "--workers", "1"], stderr=file) as process:
        while "0/200" not in errors.read_text():  # the bar
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert (
        "stopping after this batch; started again with the same arguments the evaluation goes on" in errors.read_text()
    )
    assert "Traceback" not in errors.read_text()
    folder = tmp_path / "evaluations" / "tiny-crops"
    done = torch.load(folder / "partial" / "64-process-0.pt", weights_only=True)["batches_done"]
    assert 0 < done < 200
    assert evaluate.main([*words, "--workers", "0"]) == 0
    assert small.results_in(folder)["sizes"]["64"]["images"] == 200


@pytest.mark.slow
def test_two_processes_equal_one(place: Path, tmp_path: Path) -> None:
    crops = small.save_crops(tmp_path / "crops", 7)
    (crops / "002.png").write_bytes(b"not an image")
    words = [str(place / "tiny"), str(crops), "--sizes", "32", "--batch-size", "2", "--workers", "0"]
    words += ["--random-weights", "--metrics", f"rfid,kid,{small.ALL_OWN}"]
    for count, name in ((1, "one"), (2, "two")):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        program = [sys.executable, *(launcher if count > 1 else ()), *COMMAND[1:]]
        done = children.run([*program, *words, "--output", name], timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written") == 1
        assert done.stderr.count("warning: skipped (unreadable)") == 1
        shutil.rmtree(tmp_path / "cache")
    one, two = (small.numbers_in(tmp_path / name) for name in ("one", "two"))
    assert one["data"] == two["data"]
    assert one["data"]["skipped"] == {"unreadable": 1}
    assert one["scores"] == two["scores"]
    assert_close(one["sizes"], two["sizes"])


def assert_close(one: Any, two: Any, where: str = "") -> None:
    """Equal, floats within 1e-9 of their size: sums in another order.

    Latents of other sizes, as `equivariance` decodes them, are convolved in float32 by code that oneDNN chooses.
    """
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_close(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for index, (left, right) in enumerate(zip(one, two, strict=True)):
            assert_close(left, right, f"{where}[{index}]")
    elif isinstance(one, float):
        assert one == pytest.approx(two, rel=1e-6 if ".equivariance.scale" in where else 1e-9, abs=1e-12), where
    else:
        assert one == two, where


@pytest.mark.slow
def test_processes_hear_what_is_wrong_together(place: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["bicubic", str(place / "crops"), "--output", str(place / "finished"), "--sizes", "32", "--workers", "0"]
    done = children.run([*launcher, *COMMAND[1:], *words], timeout=100)
    assert done.returncode == 1  # torchrun's own
    assert "error: --output must name an empty folder" in done.stderr
    assert "litevae/evaluat" not in done.stderr  # no traceback of ours


MEMORY = """
import resource, sys
from litevae import evaluate
from litevae.evaluation import wavelet_distance
from litevae.runs import run_folder
run_folder.commit = lambda: None  # git would be a child too
wavelet_distance._PENDING = 16
peaks = []
for number, count in enumerate(("50", "50", "500")):  # the first warms up: workers begin with their parent's memory
    assert evaluate.main([*sys.argv[1:], "--images", count, "--output", f"out-{number}"]) == 0
    own = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]  # its ru_maxrss begins at its parent's
    peaks.append([int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss])
print(peaks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: units of ru_maxrss")
@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "0"])
def test_memory_does_not_grow_with_images(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """450 images more of 64x64 in float32 would take 22 MB; scores and names of each take about 1 kB."""
    crops = small.save_crops(tmp_path / "crops", 20)
    for index in range(20, 500):
        shutil.copy(crops / f"{index % 20:03d}.png", crops / f"{index:03d}.png")
    words = [str(place / "tiny"), str(crops), "--sizes", "64", "--batch-size", "8", "--workers", workers]
    words += ["--metrics", "psnr,fwd,statistics"]
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # what is freed is given back, so that peaks are those of use
    done = children.run([sys.executable, "-c", MEMORY, *words], timeout=200)
    assert done.returncode == 0, done.stderr
    _, few, many = json.loads(done.stdout.splitlines()[-1])  # [own, of workers], kB
    assert max(later - earlier for earlier, later in zip(few, many, strict=True)) < 8_000, (few, many)
