"""How is a graph written: as a program of torch.export, as ONNX, or compiled by AOTInductor?

Each writer is called with the graph's program, the path, the names of the outputs and the description's text.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from litevae.exporting.description import EXTRA_FILE, KEY, VERSIONED

OPSET = 20
Write = Callable[[ExportedProgram, Path, Sequence[str], str], None]


def write_pt2(program: ExportedProgram, path: Path, outputs: Sequence[str], text: str) -> None:
    program.example_inputs = None  # megabytes that nobody reads
    buffer = io.BytesIO()  # in a file, the archive's folder would be named after the temporary
    with _quiet():
        torch.export.save(program, buffer, extra_files={EXTRA_FILE: text})
    path.write_bytes(buffer.getbuffer())


def write_onnx(program: ExportedProgram, path: Path, outputs: Sequence[str], text: str) -> None:
    with _quiet():
        written = torch.onnx.export(program, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False)
    assert written is not None
    _tidy(written.model, outputs)
    written.model.metadata_props[KEY] = text
    written.save(str(path))


def _tidy(model: Any, outputs: Sequence[str]) -> None:
    """Names of dimensions, [B, C, h, w] with sides such as 8*h; one value for each name; no notes of the exporter."""
    graph = model.graph
    (given,) = graph.inputs
    symbols = [re.search(r"[a-z]\w*", str(given.shape[axis])) for axis in (0, 2, 3)]
    names = {symbol[0]: name for symbol, name in zip(symbols, "Bhw", strict=True) if symbol}
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.name in outputs and value not in graph.outputs:  # a mean inside, where an output is called "mean"
            value.name = f"inner_{value.name}"
        if value.shape is not None:
            value.shape = type(value.shape)([_renamed(side, names) for side in value.shape])
    for part in (model, graph, *graph, *values, *graph.initializers.values()):
        part.metadata_props.clear()


def _renamed(side: Any, names: dict[str, str]) -> int | str | None:
    """An int, an expression of other names, or None: a side that the exporter does not know."""
    if isinstance(side, int):
        return side
    return side.value and re.sub(r"[a-z]\w*", lambda symbol: names.get(symbol[0], symbol[0]), side.value)


def write_aoti(program: ExportedProgram, path: Path, outputs: Sequence[str], text: str) -> None:
    buffer = io.BytesIO()
    configs: dict[str, Any] = {"aot_inductor.metadata": {KEY: text}}
    with _quiet():
        torch._inductor.aoti_compile_and_package(program, package_path=buffer, inductor_configs=configs)
    path.write_bytes(buffer.getbuffer())


WRITERS: dict[str, tuple[str, Write]] = {
    "onnx": (".onnx", write_onnx),
    "pt2": (".pt2", write_pt2),
    "aoti": (".aoti.pt2", write_aoti),
}
"""Format -> the ending of its files, and what writes them."""


def check_packages(to: str) -> None:
    """Raise a ModuleNotFoundError where a package that writes or runs this format is missing."""
    missing = [package for package in VERSIONED[to] if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(f'--to {to} needs {", ".join(missing)}; pip install "litevae[export]"')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes that the exporters print to nobody in particular."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
