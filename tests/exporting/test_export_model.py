"""Does an exported model do what the model does, in processes that do not have this package, and say what it is?"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils import cpp_extension

from litevae import LiteVAE, StableDiffusionVAE, export_model
from litevae.exporting import ExportError, verification
from litevae.exporting.graphs import EncoderGraph, prepared
from tests.models.variants import NARROW, VARIANTS, randomized

TINY: dict[str, Any] = {
    **NARROW,
    "wavelet_levels": (1, 2),
    "block_out_channels": (8, 8, 8),
    "decoder_normalization": "smc",
    "output_type": "wavelet",
    "mid_block_add_attention": False,
    "scaling_factor": 0.5,
}
SD_WIDTHS = (8, 8, 16, 16)
# Rarer parts of a model beside the variants of its encoder
OTHERS: dict[str, dict[str, Any]] = {"quant-conv": {"use_quant_conv": True}, "wavelet": {"output_type": "wavelet"}}


def make(**arguments: Any) -> LiteVAE:
    """A narrow model whose every parameter is random."""
    torch.manual_seed(0)
    return randomized(LiteVAE(**{**NARROW, **arguments}).eval())


def sd_vae() -> StableDiffusionVAE:
    torch.manual_seed(0)
    return StableDiffusionVAE.from_architecture(block_out_channels=SD_WIDTHS, layers_per_block=1).eval()


def loud(model: LiteVAE | StableDiffusionVAE) -> LiteVAE | StableDiffusionVAE:
    """Activations of some 10^6, as of SDXL's decoder but larger: float16 ends at 65504."""
    with torch.no_grad():
        for parameter in (model.decoder.conv_in.weight, model.decoder.conv_in.bias):
            parameter.mul_(5e5)
        for block in model.decoder.up_blocks:
            for parameter in (*block.resnets[0].conv1.parameters(), *block.resnets[0].conv2.parameters()):
                parameter.mul_(1e5)
    return model


def relative(result: Any, expected: Tensor) -> float:
    result = torch.as_tensor(np.asarray(result)).double()
    return ((result - expected).abs().max() / expected.abs().max()).item()


def test_onnx_with_onnxruntime_alone(tmp_path: Path) -> None:
    """Also at a third size, and an image of one latent position."""
    model = make(**{**TINY, "decoder_normalization": "group_norm"})
    model.enable_slicing(1)
    [exported] = export_model(model, tmp_path, "onnx", part="decoder")
    session = onnxruntime.InferenceSession(exported.path)
    given, gotten = session.get_inputs()[0], session.get_outputs()[0]
    assert (given.name, given.shape, gotten.shape) == ("latent", ["B", 4, "h", "w"], ["B", 3, "4*h", "4*w"])
    assert b"litevae/" not in exported.path.read_bytes()  # nothing of this machine's folders
    for shape in ((3, 4, 10, 7), (1, 4, 1, 1)):
        latent = torch.randn(shape)
        with torch.no_grad():
            image = model.double().decode(latent.double()).sample
        assert relative(session.run(["image"], {"latent": latent.numpy()})[0], image) < 1e-4
    assert 0 < exported.error < 1e-4
    properties = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    written = json.loads(exported.description_path.read_text())
    assert written.pop("checked")["largest_relative_error"] == exported.error
    assert json.loads(properties["litevae"]) == written
    assert [(x["name"], x["shape"], x["dtype"]) for x in (*written["inputs"], *written["outputs"])] == [
        ("latent", ["B", 4, "h", "w"], "float32"),
        ("image", ["B", 3, "4*h", "4*w"], "float32"),
    ]
    assert (written["scaling_factor"], written["downsampling"], written["latent_channels"]) == (0.5, 4, 4)
    assert written["versions"]["onnxruntime"] == onnxruntime.__version__


def test_float16_has_room_for_loud_activations() -> None:
    """Where plain float16 overflows, the prepared decoder is as exact as float16 is: LiteVAE's and SD-VAE's."""
    torch.manual_seed(0)
    for model, latent in ((make(), torch.randn(1, 4, 6, 4)), (sd_vae(), torch.randn(1, 4, 6, 4))):
        plain: Any = loud(model)
        with torch.no_grad():
            expected = plain.decode(latent).sample.double()
            ready: Any = prepared(model, torch.float16)
            image = ready.decode(latent.half()).sample
            overflowing = nn.Module.half(plain).decode(latent.half()).sample
        assert not overflowing.isfinite().all()
        assert relative(image, expected) < 64 * torch.finfo(torch.float16).eps


def test_a_scaled_stream_is_exact_in_float64() -> None:
    """The eps of the norms too, beside which activations are small here; encoder and decoder."""
    from litevae.exporting.half_range import extend_range

    model: Any = sd_vae().double()
    with torch.no_grad():
        for part, x in ((model.encoder, torch.randn(2, 3, 32, 24)), (model.decoder, torch.randn(2, 4, 4, 3))):
            part.conv_in.weight.mul_(1e-3)
            expected = part(x.double())
            extend_range(part)
            assert relative(part(x.double()), expected) < 1e-12
            assert part.conv_norm_out.eps == 1e-6 / 64**2


def test_a_wrong_file_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays."""
    model = make(encoder_type="dwt", latent_channels=12)
    (tmp_path / "encoder.pt2").write_text("before")
    options: Any = {"part": "encoder", "static": (1, 16, 16), "overwrite": True}

    def others(path: Path, to: str, inputs: list[Tensor], *_: Any) -> list[tuple[Tensor, ...]]:
        return [(torch.ones(1, 12, 2, 2), torch.zeros(1, 12, 2, 2))]

    monkeypatch.setattr(verification, "run_alone", others)
    with pytest.raises(ExportError, match=r"encoder\.pt2 must be within 0\.0001 of the model"):
        export_model(model, tmp_path, "pt2", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.pt2"]
    assert (tmp_path / "encoder.pt2").read_text() == "before"


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": nn.Linear(1, 1)}, TypeError, "model must be a LiteVAE or a StableDiffusionVAE, got 'Linear'"),
        ({"output": None}, TypeError, "output must be the path of a folder, got None"),
        ({"to": "tensorrt"}, ValueError, "to must be one of 'onnx', 'pt2', 'aoti', got 'tensorrt'"),
        ({"part": "latent"}, ValueError, "part must be one of"),
        ({"static": (64, 64)}, ValueError, r"static must be \(batch, height, width\)"),
        ({"static": (1, 64, 63)}, ValueError, "static must have a height and a width that are multiples of 8"),
        ({"dtype": torch.int8}, TypeError, r"dtype must be one of torch\.float32"),
        ({"dtype": torch.bfloat16}, ValueError, "dtype must be float32 or float16 for ONNX"),
        ({"overwrite": 1}, TypeError, "overwrite must be True or False"),
    ],
)
def test_wrong_arguments(tmp_path: Path, changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"model": make(), "output": tmp_path, "to": "onnx", **changed}
    with pytest.raises(error, match=message):
        export_model(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_and_a_package_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "decoder.onnx").touch()
    with pytest.raises(FileExistsError, match=r"decoder\.onnx exists"):
        export_model(make(), tmp_path)
    monkeypatch.setattr("litevae.exporting.writers.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ModuleNotFoundError, match=r"needs onnxscript; pip install \"litevae\[export\]\""):
        export_model(make(), tmp_path)


def test_activations_that_no_float16_holds_are_an_error(tmp_path: Path) -> None:
    """Of a decoder without norms, whose stream cannot be scaled."""
    model = make(**{**TINY, "decoder_normalization": "none", "output_type": "image"})
    with torch.no_grad():
        model.decoder.conv_in.weight.mul_(1e7)
    with pytest.raises(ExportError, match=r"dtype must hold this model's activations, got torch\.float16: the decoder"):
        export_model(model, tmp_path, "pt2", part="decoder", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VARIANTS, *OTHERS, "sd-vae"])
def test_every_variant_as_pt2(tmp_path: Path, name: str) -> None:
    model = sd_vae() if name == "sd-vae" else make(**{**VARIANTS, **OTHERS}[name])
    files = export_model(model, tmp_path, "pt2")
    assert [file.path.name for file in files] == ["encoder.pt2", "decoder.pt2"]
    extra = {"litevae.json": ""}
    for file in files:
        assert file.error < 1e-4
        program = torch.export.load(file.path, extra_files=extra)
        assert json.loads(extra["litevae.json"])["part"] == file.path.stem
        assert b"litevae/" not in file.path.read_bytes()  # nothing of this machine's folders
        assert not any("litevae" in str(node.target) for node in program.graph.nodes)
    held = sum(weight.numel() for weight in program.state_dict.values())  # the decoder's weights, not the encoder's
    assert held <= sum(x.numel() for x in prepared(model, torch.float32).decoder.parameters()) + 4 * 4 + 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nafnet", "vit", "smc-encoder", "dwt-2", "sd-vae"])
def test_variants_in_onnx_runtime(tmp_path: Path, name: str) -> None:
    model: Any = sd_vae() if name == "sd-vae" else make(**VARIANTS[name])
    encoder, decoder = export_model(model, tmp_path, "onnx")
    image = torch.rand(1, 3, 96, 32) * 2 - 1
    mean, std = onnxruntime.InferenceSession(encoder.path).run(["mean", "std"], {"image": image.numpy()})
    (restored,) = onnxruntime.InferenceSession(decoder.path).run(["image"], {"latent": mean})
    with torch.no_grad():
        posterior = model.encode(image).latent_dist
        expected = model.decode(posterior.mean).sample
    assert relative(mean, posterior.mean.double()) < 1e-4
    assert relative(restored, expected.double()) < 1e-4
    assert (std == 0).all() if name == "dwt-2" else relative(std, posterior.std.double()) < 1e-4


@pytest.mark.slow
def test_the_readme_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is printed, in a folder with the files of its command."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    example = readme.partition("<!-- onnx example -->\n```py\n")[2].partition("```")[0]
    model = make(**{**TINY, "wavelet_levels": (1, 2, 3), "block_out_channels": (8, 8, 8, 8)})
    export_model(model, tmp_path / "exported", "onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    pixels = torch.from_numpy(names["pixels"]).to(torch.uint8)
    with torch.no_grad():
        expected = model.decode(model.encode(pixels).latent_dist.mean).sample
    assert relative(names["image"], expected.double()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("kind", [make, sd_vae])
def test_loud_float16_in_files(tmp_path: Path, to: str, kind: Any) -> None:
    """ONNX Runtime computes float16 convolutions on a CPU in float32 and rounds between nodes."""
    [exported] = export_model(loud(kind()), tmp_path, to, part="decoder", dtype=torch.float16)
    assert exported.error < 64 * torch.finfo(torch.float16).eps


@pytest.mark.slow
def test_static_and_bfloat16(tmp_path: Path) -> None:
    model = make(**TINY)
    [exported] = export_model(model, tmp_path, "onnx", part="encoder", static=(2, 16, 24))
    assert [x.shape for x in onnxruntime.InferenceSession(exported.path).get_inputs()] == [[2, 3, 16, 24]]
    assert exported.description["outputs"][0]["shape"] == [2, 4, 4, 6]
    [exported] = export_model(model, tmp_path, "pt2", part="decoder", dtype=torch.bfloat16)
    assert exported.error <= 2 * exported.own_error + 8 * torch.finfo(torch.bfloat16).eps


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor and the C++ program need g++")
def test_aotinductor_in_python_and_in_cpp(tmp_path: Path) -> None:
    """A C++ program without Python decodes what the model decodes, at two sizes."""
    model = make(**TINY)
    [exported] = export_model(model, tmp_path, "aoti", part="decoder")
    assert exported.error < 1e-4
    program = tmp_path / "decode"
    libraries = cpp_extension.library_paths()
    includes = [f"-I{folder}" for folder in cpp_extension.include_paths()]
    links = [f"-L{folder}" for folder in libraries] + [f"-Wl,-rpath,{folder}" for folder in libraries]
    source = Path(__file__).with_name("decode.cpp")
    command = ["g++", "-std=c++20", str(source), "-o", str(program), *includes, *links]
    built = subprocess.run([*command, "-ltorch", "-ltorch_cpu", "-lc10"], capture_output=True, text=True)
    if built.returncode != 0:
        pytest.skip(f"the wheel's libtorch cannot be linked here: {built.stderr.strip().splitlines()[-1]}")
    linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    assert "libpython" not in linked
    for shape in ((2, 4, 8, 12), (1, 4, 5, 3)):
        latent = torch.randn(shape)
        latent.numpy().tofile(tmp_path / "latent")
        words = [str(exported.path), str(tmp_path / "latent"), *map(str, shape), str(tmp_path / "image")]
        done = subprocess.run([str(program), *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["part"] == "decoder"
        image = np.fromfile(tmp_path / "image", dtype=np.float32).reshape(shape[0], 3, 4 * shape[2], 4 * shape[3])
        with torch.no_grad():
            assert relative(image, model.decode(latent).sample.double()) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No complete tensor found")
def test_the_process_that_checks_cannot_import_litevae(tmp_path: Path) -> None:
    """A file that needs this package fails there."""
    graph = EncoderGraph(make(encoder_type="dwt", latent_channels=12))
    program = torch.export.export(graph, (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "encoder.pt2")
    with pytest.raises(RuntimeError, match="the file must run without litevae, got: "):
        verification.run_alone(tmp_path / "encoder.pt2", "pt2", [torch.zeros(1, 3, 8, 8)], torch.float32, "cpu")
