"""`export_model`: which files are written for a model, and are they right?

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from litevae.exporting import verification
from litevae.exporting.description import as_json, describe
from litevae.exporting.graphs import GRAPHS, Autoencoder, example, prepared, traced
from litevae.exporting.request import DTYPES, FORMATS, PARTS, Size
from litevae.exporting.verification import Exported
from litevae.exporting.writers import WRITERS, check_packages
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.litevae import LiteVAE
from litevae_kernels.checks import check_choice, check_flag, checked_ints, wrong_kind, wrong_value
from litevae_kernels.files import check_folder, replacing, write_text

CHECKED = ((2, 8, 12), (1, 12, 6))
"""[B, h, w] of the latents that a file for every size is traced with, and tried with."""


class ExportError(RuntimeError):
    """The file could not be made, or does not give what the model gives; it was not written."""


def export_model(
    model: Autoencoder,
    output: str | os.PathLike[str],
    to: str = "onnx",
    *,
    part: str = "both",
    static: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    report: Callable[[Exported], object] | None = None,
) -> list[Exported]:
    """Write a model's encoder and decoder for programs that do not have this package, and check the files.

    A file is encoder.onnx, decoder.pt2 and so on in `output`, with a .json beside it that describes it: names, shapes
    and ranges of inputs and outputs, scaling_factor, versions; the same text is in the file (ONNX metadata "litevae",
    pt2 extra file "litevae.json", AOTInductor metadata "litevae"). An encoder maps "image" [B, 3, H, W] in [-1, 1] to
    "mean" and "std" of the latent's posterior, [B, C, h, w]; a decoder "latent" to "image", not clamped.
    Self-modulated convolutions are folded. In float16 the residual stream of a GroupNorm decoder is scaled by 1/64
    inside, so that activations up to 4 million stay finite. `model` itself is not changed.

    Every file is loaded in a new process in which litevae cannot be imported, run at two sizes (at `static` alone) and
    compared with the model in float32; a file that differs is not kept.

    Args:
        model: a LiteVAE or StableDiffusionVAE. pt2 and aoti run on its device alone.
        output: a folder, made where it is missing.
        to: "onnx" (opset 20, ONNX Runtime, the extra "export"), "pt2" (torch.export.load) or "aoti" (AOTInductor, for
            C++ on a machine like this one; needs a C++ compiler and minutes).
        part: "encoder", "decoder" or "both".
        static: (B, H, W) of the only batch of images that the files are for, H and W in pixels. None: every batch,
            height and width, as far as the model takes them.
        dtype: of weights, inputs and outputs: torch.float32, float16 or, not for ONNX, bfloat16.
        overwrite: whether to replace files that exist.
        report: called with each file once it is there.

    Returns:
        The files, with their errors: at most 1e-4 of the largest value in float32.

    Raises:
        TypeError, ValueError: an argument outside the above. FileExistsError: a file exists. ModuleNotFoundError: a
        package is missing. ExportError: the file cannot be made, or gives another result than the model.

    >>> import tempfile
    >>> model = LiteVAE.from_preset("S", encoder_type="dwt", latent_channels=12)
    >>> [encoder] = export_model(model, tempfile.mkdtemp(), "pt2", part="encoder", static=(1, 16, 16))
    >>> encoder.path.name, encoder.description["outputs"][0]["shape"], encoder.error < 1e-4
    ('encoder.pt2', [1, 12, 2, 2], True)
    """
    if not isinstance(output, str | os.PathLike):
        raise wrong_kind("output", "be the path of a folder", output)
    size = _checked(model, to, part, static, dtype, overwrite)
    folder = Path(output)
    check_folder("output", folder)
    check_packages(to)
    parts = PARTS if part == "both" else (part,)
    paths = {name: folder / f"{name}{WRITERS[to][0]}" for name in parts}
    taken = [path for path in paths.values() if path.exists() and not overwrite]
    if taken:
        raise FileExistsError(f"{taken[0]} exists")
    ready = prepared(model, dtype)
    files = []
    for name, path in paths.items():
        files.append(_export(model, ready, name, path, to, size, dtype))
        if report is not None:
            report(files[-1])
    return files


def check_device(argument: str, device: str) -> None:
    """Raise a ValueError unless torch has this device here."""
    if device == "cuda" and not torch.cuda.is_available():
        raise wrong_value(argument, "be cpu where torch finds no CUDA GPU", device)


def _checked(model: Any, to: Any, part: Any, static: Any, dtype: Any, overwrite: Any) -> Size | None:
    """`static` as it is used, or the TypeError or ValueError of the first argument that is wrong."""
    if not isinstance(model, LiteVAE | StableDiffusionVAE):
        rule, way_out = "be a LiteVAE or a StableDiffusionVAE", "litevae.load_model loads either"
        raise wrong_kind("model", rule, type(model).__name__, way_out)
    check_choice("to", to, FORMATS)
    check_choice("part", part, (*PARTS, "both"))
    check_flag("overwrite", overwrite)
    kinds = [getattr(torch, name) for name in DTYPES]
    if dtype not in kinds:
        raise wrong_kind("dtype", f"be one of {', '.join(map(str, kinds))}", dtype)
    if to == "onnx" and dtype == torch.bfloat16:
        rule = "be float32 or float16 for ONNX: ONNX Runtime has no convolution in bfloat16 to check the file with"
        raise wrong_value("dtype", rule, dtype)
    if static is None:
        return None
    sizes = checked_ints("static", static, at_least=1)
    if len(sizes) != 3:
        raise wrong_value("static", "be (batch, height, width)", static)
    if any(side % model.downsampling for side in sizes[1:]):
        raise wrong_value("static", f"have a height and a width that are multiples of {model.downsampling}", static)
    return sizes[0], sizes[1], sizes[2]


def _export(
    model: Autoencoder, ready: Autoencoder, part: str, path: Path, to: str, size: Size | None, dtype: torch.dtype
) -> Exported:
    """One file, written only once it has been found right."""
    factor = model.downsampling
    sizes = [size] if size is not None else [(batch, factor * h, factor * w) for batch, h, w in CHECKED]
    inputs = [example(model, part, size) for size in sizes]
    graph = GRAPHS[part](ready)
    expected, own = _expected(model, part, inputs), verification.outputs(graph, inputs, dtype)
    own_error = verification.relative_error(own, expected)
    limit = verification.bound(dtype, own_error)
    if not own_error < 1:
        rule = "hold this model's activations" if dtype != torch.float32 else "give finite results"
        raise ExportError(f"dtype must {rule}, got {dtype}: the {part} is off by {own_error:g}; export it in float32")
    description = describe(model, graph, to, own[0], size, dtype)
    device = next(ready.parameters()).device
    try:
        program = traced(graph, inputs[0].to(device, dtype), size is not None)
        with replacing(path) as temporary:
            WRITERS[to][1](program, temporary, graph.outputs, as_json(description))
            results = verification.run_alone(temporary, to, inputs, dtype, str(device))
            error = verification.relative_error(results, expected)
            if not error <= limit:
                rule = f"be within {limit:.2g} of the model in float32"
                raise ExportError(f"{path.name} must {rule}, got {error:.2g}; it was not written")
    except (ExportError, OSError):
        raise
    except Exception as failure:  # of torch.export, the exporters, C++ compilers, the process: any kind
        raise ExportError(f"{path.name} cannot be made: {_first_line(failure)}") from failure
    shapes = [list(x.shape) for x in inputs]
    description["checked"] = {"shapes": shapes, "largest_relative_error": error, "in_pytorch": own_error}
    exported = Exported(path, tuple(tuple(x.shape) for x in inputs), error, own_error, description)
    write_text(exported.description_path, as_json(description))
    return exported


def _expected(model: Autoencoder, part: str, inputs: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """What the model itself gives in float32, which no folding and no scaling has touched."""
    precise = copy.deepcopy(model).eval()
    nn.Module.float(precise)  # diffusers' own `float` warns of modules that there are none of
    return verification.outputs(GRAPHS[part](precise), inputs, torch.float32)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
