"""Does an exported file run where litevae is not? A script of its own: FORMAT FILE INPUTS.npz OUTPUTS.npz DTYPE DEVICE.

It is started by its path (verification.py), imports nothing of this project, and makes such an import fail.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def main(kind: str, path: str, inputs: str, outputs: str, dtype: str, device: str) -> None:
    """Run the file on arrays "0", "1", ... and write the results "0.0" (first input, first output), "0.1", ..."""
    sys.modules["litevae"] = sys.modules["litevae_kernels"] = None  # type: ignore[assignment]  # ImportError from now on
    results: Any = {}
    with np.load(inputs) as arrays:
        run = _onnx(path, dtype) if kind == "onnx" else _torch(kind, path, dtype, device)
        for name in arrays.files:
            for index, result in enumerate(run(arrays[name])):
                results[f"{name}.{index}"] = result
    loaded = [name for name in sys.modules if name.startswith("litevae") and sys.modules[name] is not None]
    if loaded:
        raise RuntimeError(f"the exported file must run without litevae, which it imported: {loaded}")
    np.savez(outputs, **results)


Run = Callable[[np.ndarray], Sequence[np.ndarray]]


def _onnx(path: str, dtype: str) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda array: [x.astype(np.float32) for x in session.run(None, {given.name: array.astype(dtype)})]


def _torch(kind: str, path: str, dtype: str, device: str) -> Run:
    import torch

    torch.backends.cudnn.allow_tf32 = False  # float32 that is float32, as the model is compared in
    program: Any
    if kind == "pt2":
        program = torch.export.load(path).module()
    else:
        from torch._inductor import aoti_load_package

        program = aoti_load_package(path)

    def run(array: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            given = torch.from_numpy(array).to(device, getattr(torch, dtype))
            return [x.float().cpu().numpy() for x in program(given)]

    return run


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, whose names are no packages
    main(*sys.argv[1:])
