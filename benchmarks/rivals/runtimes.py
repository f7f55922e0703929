"""What else runs an exported model on a CPU: ONNX Runtime and OpenVINO, each as its own documents say.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.harness.available import missing_import
from litevae_kernels.precision import emulates_bfloat16

Run = Callable[[Tensor], Tensor]
"""A float32 batch to the file's first output, float32."""


class Runtime(NamedTuple):
    """How a file is run, from `make`, in a precision."""

    make: Callable[[Path, str], Run]
    package: str
    precision: str = "float32"

    def missing(self) -> str:
        """Why it cannot be measured here, or ""."""
        exporter = "" if find_spec("onnxscript") else 'onnxscript is not installed; pip install "litevae[export]"'
        reason = exporter or missing_import(self.package)
        if not reason and self.precision == "bfloat16" and emulates_bfloat16("cpu"):
            return "this CPU has no instructions for bfloat16"
        return reason


def onnx_runtime(path: Path, precision: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given, gotten = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    return lambda batch: torch.from_numpy(session.run(gotten, {given: batch.numpy()})[0])


def openvino(path: Path, precision: str) -> Run:
    import openvino

    short = {"float32": "f32", "bfloat16": "bf16"}[precision]
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": short,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda batch: torch.from_numpy(compiled(batch.numpy())[0])


RUNTIMES = {
    "ONNX Runtime": Runtime(onnx_runtime, "onnxruntime"),
    "OpenVINO": Runtime(openvino, "openvino"),
    "OpenVINO, bfloat16": Runtime(openvino, "openvino", "bfloat16"),
}
